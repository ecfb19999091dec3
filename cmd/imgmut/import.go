package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

var importCommand = &spec{
	name: "import", group: groupBases, args: "FILE|URL [NAME]",
	summary: "take an image into the store as a base",
	text: `The image may have a GPT, an MBR, or be one bare filesystem. It may be raw, qcow2,
vmdk, vhdx, vdi or vpc, and any of these in gzip, bzip2, xz, zstd or lz4: what it
is, is told by its bytes, not by its name. It is looked into first and refused if
it is damaged. On the store's own filesystem it is reflinked, else copied with its
holes. The file itself is never written.

A URL is of http, https, or oci:HOST/NAME:TAG, an artifact of a registry that is
one disk image. What is fetched has to have the sum that --sha256, --sha512 or a
list of sums says. A transfer that breaks off goes on where it was. What was fetched
once is not fetched again as long as it is what the URL has:

  u=https://cloud.debian.org/images/cloud/bookworm/latest
  imgmut import $u/debian-12-generic-amd64.qcow2 debian-12 --sums $u/SHA512SUMS

An image that is the difference to another one is taken together with that only
where --allow-backing says so, and only from its own directory.

Prints the name that was given, or else the digest of the base.`,
	flags: []flag{
		{name: "sha256", value: "SUM", help: "what sha256sum says of the file"},
		{name: "sha512", value: "SUM", help: "what sha512sum says of the file"},
		{name: "sums", value: "URL", help: "a list of sums that has one of the file that the other URL names, as SHA256SUMS"},
		{name: "keyring", value: "FILE", help: "the keys, one of which has signed that list, as gpgv takes them"},
		{name: "raw", help: "take the file for a raw image, whatever it looks like"},
		{name: "allow-backing", help: "let the image be the difference to another, in a file of its directory"},
	},
	store:    makesStore,
	faults:   []fault.Class{fault.Host, fault.Image, fault.NotFound},
	examples: []string{"imgmut import debian-12.raw debian-12", "imgmut import noble-server-cloudimg-amd64.img noble"},
	run: func(ctx context.Context, s *session, a args) (result, error) {
		of := recipes.Base{
			SHA256: a.flags.String("sha256"), SHA512: a.flags.String("sha512"), Sums: a.flags.String("sums"),
			Keyring: a.flags.String("keyring"), AllowBacking: a.flags.Bool("allow-backing"), Raw: a.flags.Bool("raw"),
		}
		if of.URL = a.list[0]; !recipes.IsURL(of.URL) {
			of.Path, of.URL = of.URL, ""
		} else if err := of.CheckFetched(); err != nil {
			return nil, fault.New(fault.Usage, "", "import %s: %w", of.URL, err)
		}
		name := ""
		if len(a.list) > 1 {
			name = a.list[1]
			if err := recipes.CheckName(name); err != nil {
				return nil, fault.New(fault.Usage, "", "name %q: %w", name, err)
			}
		}
		e, err := s.open(ctx)
		if err != nil {
			return nil, err
		}
		b, err := e.Import(ctx, of, name)
		if err != nil {
			return nil, err
		}
		return imported{forPeople(b), name}, nil
	},
}

type imported struct {
	*record.Base
	name string // that was asked for
}

// forPeople is a record of a base without what says nothing to anybody: hashes of
// thousands of files.
func forPeople(b *record.Base) *record.Base {
	shown := *b
	shown.Clean = nil
	return &shown
}

func (i imported) Text(w io.Writer) { fmt.Fprintln(w, cmp.Or(i.name, i.Digest)) }
