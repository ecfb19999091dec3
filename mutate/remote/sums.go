package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/tool"
)

// maxSums is how long a list of sums may be, or its signature, in bytes.
const maxSums = 4 << 20

// Sums gives the file at a URL with the sum that a list has for it, as sha256sum, sha512sum
// or their kin in BSD print it (SHA256SUMS, CHECKSUM). A list that was not fetched by https
// has to be signed, by one of the keys in the file keyring: inside itself, or in a file
// beside it whose name ends in .gpg, .sign or .asc. dir is for files in between.
func (f *Fetcher) Sums(ctx context.Context, file, list, keyring, dir string) (File, error) {
	u, err := url.Parse(file)
	if err != nil {
		return File{}, err
	}
	text, err := f.text(ctx, list, maxSums)
	if err != nil {
		return File{}, err
	}
	switch {
	case keyring != "":
		if text, err = f.signed(ctx, list, text, keyring, dir); err != nil {
			return File{}, fmt.Errorf("signature of %s: %w", list, err)
		}
	case !strings.HasPrefix(list, "https://"):
		return File{}, fault.New(fault.Recipe, "say with which keyring it is signed (keyring: FILE), or the sum itself (sha256: …)",
			"%s: everybody on the way can have changed it", list)
	}
	sum, err := find(text, path.Base(u.Path))
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", list, err)
	}
	found := File{URL: file, SHA256: sum}
	if len(sum) == 128 {
		found.SHA256, found.SHA512 = "", sum
	}
	return found, nil
}

// A line of a list: with the sum first, or as BSD has it.
var (
	sumLine = lazyregexp.New(`^([0-9a-fA-F]{64}|[0-9a-fA-F]{128}) [ *](.+)$`)
	bsdLine = lazyregexp.New(`^SHA(?:256|512) \((.+)\) = ([0-9a-fA-F]{64}|[0-9a-fA-F]{128})$`)
)

// find finds the sum of a file in a list. If there are two, the longer is it.
func find(list []byte, name string) (sum string, err error) {
	lines := bufio.NewScanner(bytes.NewReader(list))
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r ")
		of, is := "", ""
		if m := sumLine().FindStringSubmatch(line); m != nil {
			is, of = m[1], m[2]
		} else if m := bsdLine().FindStringSubmatch(line); m != nil {
			of, is = m[1], m[2]
		}
		if strings.TrimPrefix(of, "./") != name {
			continue
		}
		is = strings.ToLower(is)
		if len(is) == len(sum) && is != sum {
			return "", fault.New(fault.Image, "", "it has two sums of %s", name)
		}
		if len(is) > len(sum) {
			sum = is
		}
	}
	if err := lines.Err(); err != nil {
		return "", fault.New(fault.Image, "", "it is no list of sums: %w", err)
	}
	if sum == "" {
		return "", fault.New(fault.NotFound, "see whether it is the list of that directory, and still has the file", "it has no sum of %s", name)
	}
	return sum, nil
}

// signed gives what of a text is signed by a key of the keyring.
func (f *Fetcher) signed(ctx context.Context, list string, text []byte, keyring, dir string) ([]byte, error) {
	keyring, err := filepath.Abs(keyring) // gpgv looks elsewhere for a name
	if err == nil {
		_, err = os.Stat(keyring)
	}
	if err != nil {
		return nil, err
	}
	dir, err = os.MkdirTemp(dir, "signed-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name, sig := filepath.Join(dir, "list"), filepath.Join(dir, "list.sig")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(text, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		out := filepath.Join(dir, "out")
		if err := gpgv(ctx, dir, keyring, "--output", out, name); err != nil {
			return nil, err
		}
		return os.ReadFile(out)
	}
	b, err := f.signature(ctx, list)
	if err == nil {
		err = os.WriteFile(sig, b, 0o600)
	}
	if err != nil {
		return nil, err
	}
	return text, gpgv(ctx, dir, keyring, sig, name)
}

// signature fetches what is beside a list.
func (f *Fetcher) signature(ctx context.Context, list string) ([]byte, error) {
	var all []error
	for _, ext := range []string{".gpg", ".sign", ".asc"} {
		b, err := f.text(ctx, list+ext, maxSums)
		if err == nil {
			return b, nil
		}
		if fault.Of(err) != fault.NotFound {
			return nil, err
		}
		all = append(all, err)
	}
	return nil, errors.Join(all...)
}

// gpgv is the program that checks signatures. It takes what was signed by a key of the
// keyring, also by one that has expired since, or that its owner has revoked: those are
// refused here, by what it says of them (DETAILS of GnuPG).
func gpgv(ctx context.Context, home, keyring string, args ...string) error {
	status, err := tool.Run(ctx, tool.Call{
		Program: "gpgv", What: "check the signature", Limits: tool.Limits{Memory: 1 << 30, CPU: 30},
		Args: append([]string{"--status-fd=1", "--homedir", home, "--keyring", keyring}, args...),
	})
	var exit *tool.ExitError
	if err != nil && !errors.As(err, &exit) {
		return err
	}
	good := false
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "[GNUPG:]" {
			continue
		}
		switch f[1] {
		case "GOODSIG":
			good = true
		case "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "ERRSIG":
			err = errors.Join(err, fmt.Errorf("gpgv says %s", strings.Join(f[1:], " ")))
		}
	}
	if err == nil && !good {
		err = errors.New("nobody has signed it")
	}
	if err != nil {
		return fault.New(fault.Image, "have the right keyring of its publisher, in binary form (gpg --dearmor makes it of text)", "%w", err)
	}
	return nil
}
