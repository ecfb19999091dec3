// Payload is what the tests run in containers. Built without cgo it needs
// nothing of the image.
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
}

func run(verb string, args []string) error {
	switch verb {
	case "args":
		fmt.Print(strings.Join(args, "\n"))
	case "copy": // stdin to stdout
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "cat":
		data, err := os.ReadFile(args[0])
		os.Stdout.Write(data)
		return err
	case "write":
		return os.WriteFile(args[0], []byte("written\n"), 0o644)
	case "exit":
		status, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(status)
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	}
	return nil
}
