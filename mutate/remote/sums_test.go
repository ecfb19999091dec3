package remote

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
)

func TestFind(t *testing.T) {
	of256, of512 := strings.Repeat("a1", 32), strings.Repeat("b2", 64)
	other := strings.Repeat("c3", 32)
	for _, tc := range []struct{ name, list, want, wrong string }{
		{"sha256sum", other + "  b.raw\n" + of256 + "  a.raw\n", of256, ""},
		{"binary", of256 + " *a.raw\n", of256, ""},
		{"in this directory", of256 + "  ./a.raw\r\n", of256, ""},
		{"sha512sum", of512 + "  a.raw\n", of512, ""},
		{"BSD", "# a.raw: 7 bytes\nSHA256 (b.raw) = " + other + "\nSHA256 (a.raw) = " + strings.ToUpper(of256) + "\n", of256, ""},
		{"both", of256 + "  a.raw\nSHA512 (a.raw) = " + of512 + "\n", of512, ""},
		{"twice the same", of256 + "  a.raw\n" + of256 + "  a.raw\n", of256, ""},
		{"two", of256 + "  a.raw\n" + other + "  a.raw\n", "", "it has two sums of a.raw"},
		{"another directory", of256 + "  old/a.raw\n", "", "it has no sum of a.raw"},
		{"another name", of256 + "  aa.raw\n" + of256 + "  a.raw.sig\n", "", "it has no sum of a.raw"},
		{"short", of256[1:] + "  a.raw\n", "", "it has no sum of a.raw"},
		{"a page", "<html><body>not found</body></html>", "", "it has no sum of a.raw"},
		{"one endless line", strings.Repeat("x", 1<<20), "", "it is no list of sums"},
	} {
		got, err := find([]byte(tc.list), "a.raw")
		if got != tc.want || (err == nil) != (tc.wrong == "") || err != nil && !strings.Contains(err.Error(), tc.wrong) {
			t.Errorf("%s: %q, %v, want %q, %q", tc.name, got, err, tc.want, tc.wrong)
		}
	}
}

// keys makes a key of the publisher and one of somebody else, and gives a function that
// runs gpg with them.
func keys(t *testing.T) (dir string, gpg func(args ...string)) {
	t.Helper()
	dir = t.TempDir()
	gpg = func(args ...string) {
		t.Helper()
		fixtures.Program(t, "", "env", append([]string{"-C", dir, "GNUPGHOME=" + dir, "gpg", "--batch", "--quiet", "--yes",
			"--pinentry-mode=loopback", "--passphrase="}, args...)...)
	}
	for _, name := range []string{"publisher", "somebody"} {
		gpg("--quick-generate-key", name, "ed25519", "sign", "never")
		gpg("--output", name+".gpg", "--export", name)
	}
	t.Cleanup(func() { // its agent stays else
		if out, err := exec.Command("gpgconf", "--homedir", dir, "--kill", "all").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	return dir, gpg
}

// TestSums: a list is believed that came by https, or that is signed by a key of the
// keyring, and of what is signed no more than that.
func TestSums(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	dir, gpg := keys(t)
	is := strings.Repeat("a1", 32)
	write(t, filepath.Join(dir, "list"), []byte(is+"  a.raw\n"))
	gpg("--local-user", "publisher", "--output", "list.gpg", "--detach-sign", "list")
	gpg("--local-user", "publisher", "--output", "list.asc", "--armor", "--detach-sign", "list")
	gpg("--local-user", "publisher", "--output", "inside", "--clearsign", "list")
	gpg("--faked-system-time=20200101T000000", "--quick-generate-key", "formerly", "rsa2048", "sign", "1d")
	gpg("--output", "formerly.gpg", "--export", "formerly")
	gpg("--faked-system-time=20200101T100000", "--local-user", "formerly", "--output", "expired.gpg", "--detach-sign", "list")
	gpg("--local-user", "somebody", "--output", "other.gpg", "--detach-sign", "list")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	evil := []byte(strings.Repeat("e5", 32) + "  a.raw\n")
	for _, tc := range []struct {
		name    string
		files   map[string][]byte
		keyring string
		wrong   string
		class   fault.Class
	}{
		{"beside it", map[string][]byte{"/S": read("list"), "/S.gpg": read("list.gpg")}, "publisher.gpg", "", ""},
		{"as text beside it", map[string][]byte{"/S": read("list"), "/S.asc": read("list.asc")}, "publisher.gpg", "", ""},
		{"inside", map[string][]byte{"/S": read("inside")}, "publisher.gpg", "", ""},
		{"inside, and more around it", map[string][]byte{"/S": append(read("inside"), evil...)}, "publisher.gpg", "", ""},
		{"before what is inside", map[string][]byte{"/S": append(evil, read("inside")...)}, "publisher.gpg", "404", fault.NotFound},
		{"by somebody else", map[string][]byte{"/S": read("list"), "/S.gpg": read("other.gpg")}, "publisher.gpg", "gpgv", fault.Image},
		{"by a key that has expired", map[string][]byte{"/S": read("list"), "/S.gpg": read("expired.gpg")},
			"formerly.gpg", "EXPKEYSIG", fault.Image},
		{"of something else", map[string][]byte{"/S": evil, "/S.gpg": read("list.gpg")}, "publisher.gpg", "gpgv", fault.Image},
		{"by nobody", map[string][]byte{"/S": read("list")}, "publisher.gpg", "404 Not Found", fault.NotFound},
		{"no signature", map[string][]byte{"/S": read("list"), "/S.gpg": []byte("x")}, "publisher.gpg", "gpgv", fault.Image},
		{"no keyring", map[string][]byte{"/S": read("list"), "/S.gpg": read("list.gpg")}, "nothing.gpg", "nothing.gpg", fault.NotFound},
		{"not signed, by http", map[string][]byte{"/S": read("list")}, "", "everybody on the way", fault.Recipe},
		{"too long", map[string][]byte{"/S": make([]byte, maxSums+1)}, "publisher.gpg", "more than", fault.Host},
		{"not there", nil, "publisher.gpg", "404 Not Found", fault.NotFound},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, ok := tc.files[r.URL.Path]
				if !ok {
					w.WriteHeader(http.StatusNotFound)
				}
				fmt.Fprintf(w, "%s", b)
			}))
			defer server.Close()
			keyring := ""
			if tc.keyring != "" {
				keyring = filepath.Join(dir, tc.keyring)
			}
			tmp := t.TempDir()
			f, err := fetcher(t).Sums(t.Context(), server.URL+"/a.raw", server.URL+"/S", keyring, tmp)
			if tc.wrong == "" && (err != nil || f.SHA256 != is || f.URL != server.URL+"/a.raw") {
				t.Errorf("%+v, %v", f, err)
			}
			if tc.wrong != "" && (err == nil || !strings.Contains(err.Error(), tc.wrong) || fault.Of(err) != tc.class) {
				t.Errorf("error %v of class %q, want %q", err, fault.Of(err), tc.wrong)
			}
			if left, _ := os.ReadDir(tmp); len(left) > 0 {
				t.Errorf("%s was left", left)
			}
		})
	}
}
