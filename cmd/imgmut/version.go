package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// release is set by the linker: -X main.release=v1.2.3.
var release string

// version is the release, or what Go knows of the commit it was built from.
func version() string {
	if release != "" {
		return release
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

// versionLine is what people see of it.
func versionLine() string {
	return fmt.Sprintf("imgmut %s (%s, %s)", version(), runtime.Version(), runtime.GOARCH)
}

func (c *commands) versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "print the version", OnUsageError: usageError,
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 0, 0, "no argument"); err != nil {
				return err
			}
			v := map[string]string{"version": version(), "go": runtime.Version(), "arch": runtime.GOARCH}
			return c.print(v, func(w io.Writer) { fmt.Fprintln(w, versionLine()) })
		},
	}
}
