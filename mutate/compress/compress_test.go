package compress_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/compress"
)

// TestReader: streams one after the other are one text, as their own programs have it.
func TestReader(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	half := strings.Repeat("half a text. ", 20_000)
	for name, how := range map[string][]string{
		"gzip": {"gzip"}, "zstd": {"zstd", "-q"}, "xz": {"xz"}, "lz4": {"lz4"}, "bzip2": {"bzip2"},
	} {
		one := fixtures.Program(t, half, how[0], append(how[1:], "-c")...)
		for _, tc := range []struct{ name, packed, want, wrong string }{
			{"one", one, half, ""},
			{"two", one + one, half + half, ""},
			{"two, and zeros", one + one + strings.Repeat("\x00", 8), half + half, ""},
			{"cut off", one[:len(one)-7], "", "unexpected EOF"},
			{"cut off in the second", one + one[:len(one)/2], "", "unexpected EOF"},
			{"something behind", one + "more of it", "", ""},
		} {
			if name == "bzip2" && strings.Contains(tc.name, "behind") || name == "bzip2" && strings.Contains(tc.name, "zeros") {
				continue // its library looks for further streams itself
			}
			m := compress.Of([]byte(tc.packed))
			r, err := m.NewReader(strings.NewReader(tc.packed))
			if err != nil || m.Name != name {
				t.Errorf("%s of %s is %q, %v", tc.name, name, m.Name, err)
				continue
			}
			got, err := io.ReadAll(r)
			r.Close()
			if tc.want == "" && (err == nil || !strings.Contains(err.Error(), tc.wrong)) {
				t.Errorf("%s of %s: %v, want %q", tc.name, name, err, tc.wrong)
			}
			if tc.want != "" && (err != nil || string(got) != tc.want) {
				t.Errorf("%s of %s: %d bytes, want %d, %v", tc.name, name, len(got), len(tc.want), err)
			}
		}
	}
}

// TestNoStream: what is no more than the beginning of a stream ends, and is none.
func TestNoStream(t *testing.T) {
	for _, text := range []string{"\x28\xb5\x2f\xfd", "\x1f\x8b", "\xfd7zXZ\x00", "\x04\x22\x4d\x18", "BZh"} {
		r, err := compress.Of([]byte(text)).NewReader(strings.NewReader(text))
		if err == nil {
			_, err = io.ReadAll(r)
			r.Close()
		}
		if err == nil {
			t.Errorf("%q is taken for a whole stream", text)
		}
	}
}

func TestUnknown(t *testing.T) {
	if m := compress.Of([]byte("#!/bin/sh")); m.Name != "" {
		t.Errorf("a script is %s", m.Name)
	}
	m := compress.Of([]byte("\x89LZO\x00\r\n"))
	if _, err := m.NewReader(bytes.NewReader(nil)); m.Name != "lzo" || !errors.Is(err, compress.ErrUnknown) {
		t.Errorf("%s: %v", m.Name, err)
	}
}
