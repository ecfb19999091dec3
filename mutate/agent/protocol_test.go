package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	frames := []frame{
		{Hello, nil},
		{Request, []byte(`{"Put":true}`)},
		{Data, bytes.Repeat([]byte{0, 0xff}, MaxFrame/2)},
		{End, nil}, {Output, []byte("\r\n")}, {Result, []byte("{}")},
	}
	for _, f := range frames {
		if err := WriteFrame(&b, f.kind, f.payload); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.HalfReader(&b) // a pipe gives what it has
	for _, f := range frames {
		kind, payload, err := ReadFrame(r)
		if err != nil || kind != f.kind || !bytes.Equal(payload, f.payload) {
			t.Fatalf("ReadFrame = %q, %d bytes, %v; want %q, %d bytes", kind, len(payload), err, f.kind, len(f.payload))
		}
	}
	if _, _, err := ReadFrame(r); err != io.EOF {
		t.Errorf("after the last frame: %v, want EOF", err)
	}
}

// TestWriteFrameOnce: a frame is one write, so two writers cannot mix theirs.
func TestWriteFrameOnce(t *testing.T) {
	var w countingWriter
	if err := WriteFrame(&w, Output, []byte("text")); err != nil || w != 1 {
		t.Errorf("WriteFrame: %d writes, %v", w, err)
	}
}

type countingWriter int

func (w *countingWriter) Write(b []byte) (int, error) { *w++; return len(b), nil }

func TestFrameTooLarge(t *testing.T) {
	var w countingWriter
	if err := WriteFrame(&w, Data, make([]byte, MaxFrame+1)); !errors.Is(err, ErrProtocol) || w != 0 {
		t.Errorf("WriteFrame: %v after %d writes, want ErrProtocol before any", err, w)
	}
}

func TestReadFrameErrors(t *testing.T) {
	head := func(kind byte, n uint32) string {
		return string(binary.BigEndian.AppendUint32([]byte{kind}, n))
	}
	for _, tc := range []struct {
		name, in, want string
	}{
		{"unknown kind", head('x', 0), "kind 'x'"},
		{"text", "/bin/sh: not found\n", "kind '/'"},
		{"one too many", head(Data, MaxFrame+1), fmt.Sprint(MaxFrame+1, " bytes")},
		{"largest number", head(Data, 1<<32-1), "4294967295 bytes"},
		{"cut in the head", head(Data, 1)[:3], "unexpected EOF"},
		{"cut before the payload", head(Data, 1), "EOF"},
		{"cut in the payload", head(Data, 3) + "ab", "unexpected EOF"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := ReadFrame(strings.NewReader(tc.in))
			if err == nil || err == io.EOF || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("ReadFrame: %v, want %q", err, tc.want)
			}
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("ReadFrame: %v does not wrap ErrProtocol", err)
			}
		})
	}
}

// FuzzReadFrame: what is accepted is exactly what WriteFrame writes, and no
// length that a frame claims makes it allocate more than the largest frame.
func FuzzReadFrame(f *testing.F) {
	for _, seed := range []string{
		"", "H\x00\x00\x00\x00", "D\x00\x00\x00\x02ab", "D\x00\x10\x00\x01",
		"R\xff\xff\xff\xff", "x\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		for {
			at := len(in) - r.Len()
			kind, payload, err := ReadFrame(r)
			if cap(payload) > MaxFrame {
				t.Fatalf("a payload of %d bytes was allocated", cap(payload))
			}
			if err == io.EOF && at != len(in) {
				t.Fatalf("EOF at %d of %d bytes", at, len(in))
			}
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrProtocol) {
					t.Fatalf("%v does not wrap ErrProtocol", err)
				}
				return
			}
			var b bytes.Buffer
			if err := WriteFrame(&b, kind, payload); err != nil {
				t.Fatal(err)
			}
			if read := in[at : len(in)-r.Len()]; !bytes.Equal(b.Bytes(), read) {
				t.Fatalf("read %q, written again %q", read, b.Bytes())
			}
		}
	})
}

// TestServeRefuses: anywhere but in a guest, serving would end every process
// of the machine. The check itself is safe: no test is PID 2.
func TestServeRefuses(t *testing.T) {
	var out bytes.Buffer
	err := Serve(strings.NewReader(""), &out)
	if err == nil || !strings.Contains(err.Error(), "inside a guest only") || out.Len() > 0 {
		t.Errorf("Serve: %v, said %q; want it to refuse in silence", err, &out)
	}
}
