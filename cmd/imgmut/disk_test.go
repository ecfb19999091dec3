package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// rootStart is where the first partition of a disk begins, in bytes.
const rootStart = 1 << 20

// volumeUUID is that of the small filesystem on a disk.
const volumeUUID = "9d2f1c34-0000-4000-8000-00000000000a"

// diskCmd: disk FILE LABEL MOUNT TYPE [OPTIONS] makes a disk with the bare
// Debian in a first partition and a small ext4 in a second. LABEL is gpt or dos
// and TYPE that of the second partition. MOUNT is where fstab mounts it, with
// OPTIONS, or none.
func diskCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 || len(args) > 5 {
		ts.Fatalf("usage: disk FILE LABEL MOUNT TYPE [OPTIONS]")
	}
	file, label, mount, kind, options := ts.MkAbs(args[0]), args[1], args[2], args[3], "defaults"
	if len(args) == 5 {
		options = args[4]
	}
	bootable := ""
	if label == "dos" {
		bootable = ", bootable"
	}
	table := file + ".table"
	script := fmt.Sprintf("label: %s\nsize=2G, type=L%s\ntype=%s\n", label, bootable, kind)
	ts.Check(os.WriteFile(table, []byte(script), 0o644))
	os.RemoveAll(file)
	ts.Check(os.WriteFile(file, nil, 0o644))
	ts.Check(os.Truncate(file, 2200<<20))
	ts.Check(ts.Exec("sh", "-euc", `sfdisk -q "$1" < "$2"`, "sh", file, table))
	place(ts, ts.Getenv("BARE"), file, rootStart)
	small := file + ".small"
	ts.Check(os.WriteFile(small, nil, 0o644))
	ts.Check(os.Truncate(small, 64<<20))
	ts.Check(ts.Exec("mkfs.ext4", "-q", "-F", "-U", volumeUUID, small))
	place(ts, small, file, secondStart(ts, file))
	if mount != "none" {
		fstabCmd(ts, false, []string{args[0], fmt.Sprintf("UUID=%s %s ext4 %s 0 2", volumeUUID, mount, options)})
	}
}

// fstabCmd: fstab FILE LINE adds a line to the fstab of the first partition.
func fstabCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: fstab FILE LINE")
	}
	dir, err := os.MkdirTemp(ts.MkAbs("."), "fstab-")
	ts.Check(err)
	fstab := filepath.Join(dir, "fstab")
	root := fmt.Sprintf("%s?offset=%d", ts.MkAbs(args[0]), rootStart)
	ts.Check(ts.Exec("debugfs", "-R", "dump /etc/fstab "+fstab, root))
	text, err := os.ReadFile(fstab)
	ts.Check(err)
	ts.Check(os.WriteFile(fstab, []byte(string(text)+args[1]+"\n"), 0o644))
	ts.Check(ts.Exec("debugfs", "-w", "-R", "rm /etc/fstab", root))
	ts.Check(ts.Exec("debugfs", "-w", "-R", "write "+fstab+" /etc/fstab", root))
}

// peekCmd: peek FILE PATH prints a file of the second partition.
func peekCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: peek FILE PATH")
	}
	file := ts.MkAbs(args[0])
	ts.Check(ts.Exec("debugfs", "-R", "cat "+args[1], fmt.Sprintf("%s?offset=%d", file, secondStart(ts, file))))
}

// place copies a file into another, at an offset.
func place(ts *testscript.TestScript, from, to string, offset int64) {
	ts.Check(ts.Exec("dd", "if="+from, "of="+to, "bs=1M", "oflag=seek_bytes", fmt.Sprint("seek=", offset),
		"conv=sparse,notrunc", "status=none"))
}

// secondStart is where the second partition begins, in bytes.
func secondStart(ts *testscript.TestScript, file string) (offset int64) {
	ts.Check(ts.Exec("partx", "--nr", "2", "--noheadings", "--raw", "--output", "START", file))
	var sector int64
	_, err := fmt.Sscan(strings.TrimSpace(ts.ReadFile("stdout")), &sector)
	ts.Check(err)
	return sector * 512
}
