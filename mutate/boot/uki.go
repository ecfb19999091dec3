package boot

import (
	"cmp"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/uki"
)

// maxPrograms is how many programs of an EFI system partition are looked into.
const maxPrograms = 256

// unified reads the unified kernel images in a directory below EFI.
func (c *chain) unified(p Place, dir string) (all []loaderEntry) {
	dir = path.Join("EFI", dir)
	if c.seen[p.name(dir)] || !p.has(dir) {
		return nil
	}
	c.seen[p.name(dir)] = true
	for _, file := range c.names(p, dir) {
		if !strings.EqualFold(path.Ext(file), ".efi") {
			continue
		}
		if c.programs++; c.programs > maxPrograms {
			c.fail("there are more than %d EFI programs", maxPrograms)
			return all
		}
		if e, ok := c.readUKI(p, path.Join(dir, file)); ok {
			all = append(all, e)
		}
	}
	return all
}

// readUKI reads a unified kernel image, with the add-ons that have more of the
// command line (systemd-stub(7)).
func (c *chain) readUKI(p Place, file string) (e loaderEntry, ok bool) {
	u := uki.Read(p.FS, file, ".linux", ".initrd", ".cmdline", ".uname", ".osrel")
	kernel, ok := u.Find(".linux")
	if !ok {
		return e, false
	}
	text := func(section string) string {
		s, _ := u.Find(section)
		return s.Text()
	}
	release := etc.ParseOSRelease(text(".osrel"))
	e.Loader, e.File, e.Title, e.Options = "uki", p.name(file), release["PRETTY_NAME"], text(".cmdline")
	name := strings.TrimSuffix(path.Base(file), path.Ext(file))
	id, spent := cutTries(name)
	e.ID, e.spent = id+path.Ext(file), spent
	e.sortKey = cmp.Or(release["IMAGE_ID"], release["ID"])
	e.version = cmp.Or(release["IMAGE_VERSION"], release["VERSION_ID"])
	e.Version = cmp.Or(firstRelease(text(".uname")), versionInHeader(kernel.Head), nameVersion("vmlinuz-"+name))
	extra := path.Join(path.Dir(file), id+path.Ext(file)+".extra.d")
	for _, addon := range c.names(p, extra) {
		if strings.HasSuffix(strings.ToLower(addon), ".addon.efi") {
			line, _ := uki.Read(p.FS, path.Join(extra, addon), ".cmdline").Find(".cmdline")
			if len(e.Options) <= maxCommandLine {
				e.Options += " " + line.Text()
			}
		}
	}
	return e, true
}

// readPrograms takes the unified kernel images that firmware starts by itself:
// that in EFI/BOOT, and those of a vendor, for which it has to be told.
func (c *chain) readPrograms() {
	for _, p := range c.places {
		for _, vendor := range c.names(p, "EFI") {
			for _, e := range c.unified(p, vendor) {
				e.Default = strings.EqualFold(vendor, "BOOT") || len(c.entries) == 0
				c.add(e.Entry)
			}
		}
	}
}
