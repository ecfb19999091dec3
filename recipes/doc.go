// Package recipes reads recipes: the YAML files that say which image to make.
//
//	version: 1
//	name: web            # the image's name in the store
//	base: debian-12      # a store name, a path, or {path: …, sha256: …}
//	disk: {size: 20G}    # or +10G, and which partition has the room: grow: /var
//	ostree: {mode: commit} # of a deployment: steps change /usr as well; keep: 1 drops the old one
//	steps:
//	  - run: apt-get clean
//	  - name: motd       # a step may have a name, env, network, max-age, timeout, hidden
//	    write: {path: /etc/motd, content: "hello\n", mode: "0644"}
//	verify:
//	  - file: {path: /etc/motd, content: "hello\n"}
//	identity: {filesystems: true}
//	register: {machined: true}
//
// # Words
//
// The kind of a step is the one key of its mapping that is not name, env,
// network, max-age, timeout or hidden; what stands after it are its options. An
// assertion is the same without those five. This package knows no kinds: it
// leaves what follows as [Options], and the package that has a list of [Kinds]
// decodes them.
//
//	type Write struct {
//		Path    string `yaml:"path"`
//		Content string `yaml:"content"`
//	}
//
//	func (w *Write) Validate(o recipes.Options) recipes.Problems {
//		v := o.Validation()
//		v.Check("path", checkTarget(w.Path))
//		return v.Problems()
//	}
//
//	var kinds = recipes.Kinds[Step]{{Name: "write", Version: 1, New: func() Step { return new(Write) }}}
//
//	r, err := recipes.Load("web.yaml")
//	...
//	steps, err := recipes.DecodeAll(kinds, r.Steps)
//
// # Problems
//
// A recipe is right or there are [Problems]: every one of them at once, each
// with its place and its path, and a hint if the mend is evident.
//
//	web.yaml:9:46: steps[1].write.mode: want text, found the number 0644
//
// # Values
//
// Nothing is guessed. Where text is wanted, 0644, 1.10 and true are problems
// until they are quoted; unknown and duplicate keys are problems too. A value
// may be left empty only where a list of steps or the options of a kind could
// be empty as well.
//
// A [Set] is the exception: a command line has no types, so the place that it
// goes to decides whether "true" is a boolean or four letters, and text is
// taken as it is, without YAML's quotes and escapes.
//
// # YAML, and what is left out of it
//
// A recipe is one document without anchors, aliases, merge keys and tags. Its
// keys are text, each once. Characters that nobody sees, but for tabs and line
// breaks, are written as escapes.
//
// Recipes come from people we do not know, so size, depth and the number of
// values are bounded. This is the only package that imports a YAML package,
// and no type of that shows here.
//
// Nothing here touches the host, except that [Load] reads its one file.
package recipes
