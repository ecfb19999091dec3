package mutate

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
)

// TestLook: what can be seen of an image is seen, also of one that is refused or was
// taken from a running machine, and no byte of it changes.
func TestLook(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools, fixtures.Images)
	for _, tc := range []struct {
		layout     string
		mounts     int
		start      string // the loader of what starts by default, and its file
		unreplayed int
		refused    string
	}{
		{"suse", 11, "grub /boot/grub2/grub.cfg", 0, ""},
		{"live-ext4", 2, "bls /boot/efi/loader/entries/debian.conf", 1, ""},
		{"live-btrfs", 2, "bls /boot/efi/loader/entries/debian.conf", 1, ""},
		{"bootc-old", 6, "bls /boot/loader/entries/ostree-1.conf", 0, ""},
		{"two-roots", 0, "", 0, "the image has 2 roots"},
	} {
		t.Run(tc.layout, func(t *testing.T) {
			file := fixtures.Image(t, tc.layout)
			before := digest(t, file)
			p, err := Look(t.Context(), file, func(text string) { t.Error(text) })
			if p == nil || (err == nil) != (tc.refused == "") {
				t.Fatalf("Look = %+v, %v", p, err)
			}
			if tc.refused != "" && (fault.Of(err) != fault.Image || p.Refused == nil || !strings.Contains(p.Refused.Error, tc.refused)) {
				t.Errorf("refused %+v, %v; want %s", p.Refused, err, tc.refused)
			}
			if len(p.Layout.Mounts) != tc.mounts || len(p.Unreplayed) != tc.unreplayed {
				t.Errorf("%d mounts %+v and unreplayed %v", len(p.Layout.Mounts), p.Layout.Mounts, p.Unreplayed)
			}
			if tc.start != "" {
				if len(p.Boot) == 0 || !strings.HasPrefix(p.Boot[0].Loader+" "+p.Boot[0].File, tc.start) || !p.Boot[0].Default {
					t.Errorf("it starts %+v, want %s", p.Boot, tc.start)
				}
				if ostree := tc.layout == "bootc-old"; ostree != strings.HasPrefix(p.Boot[0].Ostree, "/ostree/boot.1/debian/") {
					t.Errorf("the deployment is %q", p.Boot[0].Ostree)
				}
			}
			if digest(t, file) != before {
				t.Error("the image has changed")
			}
		})
	}
}

// TestLookThatFails: an image that could not be looked into, whosever fault that is, is
// not said to be one that can be imported.
func TestLookThatFails(t *testing.T) {
	fixtures.Require(t, fixtures.Tools, fixtures.Images)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p, err := Look(ctx, fixtures.Image(t, "two-roots"), nil)
	if err == nil || p == nil || p.Refused == nil || !strings.Contains(err.Error(), p.Refused.Error) {
		t.Errorf("Look = %+v, %v", p, err)
	}
}

func digest(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s, err := content.Sum(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}
