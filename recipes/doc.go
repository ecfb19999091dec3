// Package recipes reads recipes: the YAML files that say which image to make.
//
//	version: 1
//	name: web            # the image's name in the store
//	base: debian-12      # a store name, a path, or {path: …, sha256: …}
//	steps:
//	  - run: apt-get clean
//	  - name: motd       # a step may have a name, env, network and max-age
//	    write: {path: /etc/motd, content: "hello\n", mode: "0644"}
//	verify:
//	  - file: {path: /etc/motd, content: "hello\n"}
//	register: {machined: true}
//
// # Words
//
// The kind of a step is the one key of its mapping that is not name, env,
// network or max-age; what stands after it are its options. An assertion is
// the same without those four. This package does not know the kinds. It leaves
// the options as [Options], and who knows the kind decodes them:
//
//	r, err := recipes.Load("web.yaml")
//	...
//	var w struct {
//		Path    string `yaml:"path"`
//		Content string `yaml:"content"`
//	}
//	problems := r.Steps[1].Options.Decode(&w)
//	if w.Path == "" {
//		problems = append(problems, r.Steps[1].Options.Problem("path", "missing"))
//	}
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
// until they are quoted; unknown and duplicate keys are problems too. Null
// stands for nothing said only where a list of steps or the options of a kind
// could be empty.
//
// A [Set] is the exception: a command line has no types, so the place that it
// goes to decides whether "true" is a boolean or four letters, and text is
// taken as it is, without YAML's quotes and escapes.
//
// # YAML, and what is left out of it
//
// Text is on one line, with quotes or without, or it is a block after "|" or
// ">". A tab is only part of a block or a comment.
//
// Anchors, aliases, merge keys, tags, directives, explicit keys and further
// documents are refused before the YAML package builds anything of them, and
// so is what it could only read at great cost: recipes come from people we do
// not know. This is the only package that imports a YAML package, and no type
// of that shows here.
//
// Nothing here touches the host, but for Load, which reads its one file.
package recipes
