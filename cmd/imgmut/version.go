package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// tag is set by the linker: -X main.tag=v1.2.3.
var tag string

// version is the tag of a release, or what Go knows of the commit it was built from.
func version() string {
	if tag != "" {
		return tag
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return fmt.Sprintf("devel-%.12s", s.Value)
		}
	}
	return "devel"
}

var versionCommand = &spec{
	name: "version", group: groupHelp,
	summary:  "print the version",
	examples: []string{"imgmut version"},
	run: func(context.Context, *session, args) (result, error) {
		return currentRelease(), nil
	},
}

// release is a version, and what it was built with and for.
type release struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Arch    string `json:"arch"`
}

func (r release) Text(w io.Writer) { fmt.Fprintf(w, "imgmut %s (%s, %s)\n", r.Version, r.Go, r.Arch) }

func currentRelease() release { return release{version(), runtime.Version(), runtime.GOARCH} }
