// Payload is what the tests run in containers. Built without cgo it needs
// nothing of the image.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "args":
		fmt.Print(strings.Join(args, "\n"))
	case "copy": // files, then stdin, to stdout
		for _, file := range args {
			data, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			os.Stdout.Write(data)
		}
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "cat":
		data, err := os.ReadFile(args[0])
		os.Stdout.Write(data)
		return err
	case "write":
		return os.WriteFile(args[0], []byte("written\n"), 0o644)
	case "users": // which ids they have on the machine, and whose a file is; makes another
		ids, err := os.ReadFile("/proc/self/uid_map")
		if err != nil {
			return err
		}
		var st syscall.Stat_t
		if err := syscall.Stat(args[0], &st); err != nil {
			return err
		}
		fmt.Println(strings.Join(strings.Fields(string(ids)), " "))
		fmt.Println("owner", st.Uid, st.Gid)
		return os.WriteFile(args[1], nil, 0o644)
	case "device": // b or c, major, minor: makes a node and opens it
		const node = "/dev/made"
		kind := map[string]uint32{"b": syscall.S_IFBLK, "c": syscall.S_IFCHR}[args[0]]
		major, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		minor, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		if err := syscall.Mknod(node, kind|0o600, major<<8|minor&0xff|minor>>8<<20); err != nil {
			return err
		}
		f, err := os.Open(node)
		if err != nil {
			return err
		}
		return f.Close()
	case "exit":
		status, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(status)
	case "die":
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	}
	return nil
}
