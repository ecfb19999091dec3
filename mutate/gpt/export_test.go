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
	return exported(old.edited(e).batches()), nil
}

// GrowBatches gives the writes of Grow, as Batches does those of Apply.
func GrowBatches(f *os.File, g Growth) ([][]Write, error) {
	old, _, err := read(f)
	if err != nil {
		return nil, err
	}
	p, err := old.grown(g)
	if err != nil {
		return nil, err
	}
	batches, err := p.moving(old)
	return exported(batches), err
}

func exported(batches []batch) (all [][]Write) {
	for _, b := range batches {
		var ws []Write
		for _, w := range b.writes {
			ws = append(ws, Write{w.off, w.data})
		}
		all = append(all, ws)
	}
	return all
}
