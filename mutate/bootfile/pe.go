package bootfile

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/pe"
	"encoding/binary"
	"errors"
	"io"
	"slices"
)

// maxSections is how many initrds of a unified kernel image are looked into.
const maxSections = 32

func isPE(head []byte) bool { return bytes.HasPrefix(head, []byte("MZ")) }

// pe gives a program of firmware: the initrds in it one by one, all the rest as
// it is. One whose header is damaged is given as a whole.
func (w *walker) pe(in *bufio.Reader, head []byte) error {
	at := int64(0)
	for _, s := range initrdsOf(head) {
		start := int64(s.PointerToRawData)
		if start < at {
			continue // in another: both are given as they are
		}
		if err := w.plain(in, start-at); err != nil {
			return err
		}
		size := int64(min(s.SizeOfRawData, s.VirtualSize))
		section := &io.LimitedReader{R: in, N: size}
		inside := bufio.NewReaderSize(section, lookAhead)
		var damage *damageError
		switch err := w.segments(inside); {
		case errors.As(err, &damage):
			w.Unread(".initrd", damage.Error())
		case err != nil:
			return err
		}
		if err := w.rest(inside); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, section); err != nil {
			return err
		}
		at = start + size
	}
	return w.rest(in)
}

// plain gives the next bytes as they are.
func (w *walker) plain(in *bufio.Reader, size int64) error {
	r := &io.LimitedReader{R: in, N: size}
	if err := w.Content("", r); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, r)
	return err
}

// initrdsOf lists the sections .initrd and .ucode, in the order of the file.
func initrdsOf(head []byte) []pe.SectionHeader32 {
	if len(head) < 0x40 {
		return nil
	}
	at := int64(binary.LittleEndian.Uint32(head[0x3c:]))
	if at >= int64(len(head)) {
		return nil
	}
	r := bytes.NewReader(head[at:])
	var h struct {
		Signature [4]byte
		pe.FileHeader
	}
	if binary.Read(r, binary.LittleEndian, &h) != nil || string(h.Signature[:]) != "PE\x00\x00" {
		return nil
	}
	if _, err := r.Seek(int64(h.SizeOfOptionalHeader), io.SeekCurrent); err != nil {
		return nil
	}
	var found []pe.SectionHeader32
	for range h.NumberOfSections {
		var s pe.SectionHeader32
		if binary.Read(r, binary.LittleEndian, &s) != nil || len(found) == maxSections {
			break
		}
		if name := string(bytes.TrimRight(s.Name[:], "\x00")); name == ".initrd" || name == ".ucode" {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b pe.SectionHeader32) int { return cmp.Compare(a.PointerToRawData, b.PointerToRawData) })
	return found
}
