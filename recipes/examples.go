package recipes

import (
	"embed"
	"io/fs"
)

//go:embed examples
var examples embed.FS

// Examples holds recipes to start from (minimal.yaml, web.yaml, bootc.yaml) and the files
// that they name.
func Examples() fs.FS {
	sub, err := fs.Sub(examples, "examples")
	if err != nil { // cannot be: the name is a valid path
		panic(err)
	}
	return sub
}
