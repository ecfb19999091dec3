package gpt

import "os"

// Write is one write that Apply would make.
type Write struct {
	Off  int64
	Data []byte
}

// Batches gives the writes of Apply, by barrier, without making them.
func Batches(f *os.File, e Edit) ([][]Write, error) {
	old, _, err := read(f)
	if err != nil {
		return nil, err
	}
	var all [][]Write
	for _, b := range old.edited(e).batches() {
		var ws []Write
		for _, w := range b.writes {
			ws = append(ws, Write{w.off, w.data})
		}
		all = append(all, ws)
	}
	return all, nil
}
