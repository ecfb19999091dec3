package gpt_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain lets many tests run at once: most of their time they wait, because
// sgdisk sleeps a second after each change for a kernel that is not there.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}
