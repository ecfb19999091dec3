package gpt

import (
	"errors"
	"fmt"
	"os"
)

// pair is both copies of a table.
type pair struct {
	disk
	primary, backup *tableCopy
}

// candidate is what one sector size finds where the headers belong: the primary
// in sector 1, the backup in the last sector.
type candidate struct {
	disk
	primary, backup       *tableCopy
	primaryErr, backupErr error
}

// rank orders sector sizes by how much speaks for them.
func (p *candidate) rank() int {
	switch {
	case p.primaryErr == nil:
		return 3
	case p.backupErr == nil:
		return 2
	case p.primaryErr != unsigned || p.backupErr != unsigned:
		return 1
	}
	return 0
}

// load finds the table of the image and reads both copies. All addresses and
// sums within one copy are good then.
func load(f *os.File) (*pair, error) {
	size, err := fileSize(f)
	if err != nil {
		return nil, err
	}
	var best *candidate
	for _, sector := range []int64{512, 4096} {
		p, err := readHeaders(disk{f: f, sector: sector, sectors: uint64(size / sector)})
		if err != nil {
			return nil, err
		}
		if best != nil && p.rank() > 1 && p.rank() == best.rank() {
			// systemd refuses as well (dissect-image.c, probe_sector_size).
			return nil, &DamageError{"both GPT copies", "there is a table for sectors of 512 bytes and another for 4096", ""}
		}
		if best == nil || p.rank() > best.rank() {
			best = p
		}
	}
	if best.rank() == 0 {
		return nil, best.noTable()
	}
	return best.pair(size)
}

// readHeaders reads both headers as sectors of one size would have them. What is
// wrong with them is not yet an error: the other size may be the right one.
func readHeaders(d disk) (*candidate, error) {
	p := &candidate{disk: d, primaryErr: unsigned, backupErr: unsigned}
	if d.sectors < 2 {
		return p, nil
	}
	p.primary, p.primaryErr = d.header(1)
	p.backup, p.backupErr = d.header(d.sectors - 1)
	return p, errors.Join(ioOnly(p.primaryErr), ioOnly(p.backupErr))
}

// noTable tells a file that never had a table from one that lost both copies.
func (p *candidate) noTable() error {
	protected, err := protective(p.f)
	if err != nil {
		return err
	}
	if !protected {
		return ErrNoTable
	}
	return &DamageError{"both GPT copies", "sector 0 announces a table, but neither header is there", mendFetch}
}

// pair follows the primary to the backup, reads the arrays, and reports what
// is wrong with either copy.
func (p *candidate) pair(size int64) (*pair, error) {
	if p.primaryErr == nil {
		switch alt := p.primary.u64(offAlternate); {
		case alt >= p.sectors:
			return nil, &DamageError{"backup GPT",
				fmt.Sprintf("its header belongs in sector %d, but the file ends after sector %d: "+
					"the image of %d bytes is truncated", alt, p.sectors-1, size), mendFetch}
		case alt < 2:
			p.primaryErr = faultf("header says that the backup is in sector %d", alt)
		case alt != p.sectors-1:
			p.backup, p.backupErr = p.header(alt)
		}
	}
	if p.primaryErr == nil {
		p.primaryErr = p.readArray(p.primary)
	}
	if p.backupErr == nil {
		p.backupErr = p.readArray(p.backup)
	}
	if err := errors.Join(ioOnly(p.primaryErr), ioOnly(p.backupErr)); err != nil {
		return nil, err
	}
	return &pair{p.disk, p.primary, p.backup}, p.damage()
}

func (p *candidate) damage() error {
	switch {
	case p.primaryErr != nil && p.backupErr != nil:
		return &DamageError{"both GPT copies", fmt.Sprintf("primary: %v; backup: %v", p.primaryErr, p.backupErr), mendFetch}
	case p.primaryErr != nil:
		return &DamageError{"primary GPT", p.primaryErr.Error(), p.mend(p.primaryErr, p.backup)}
	case p.backupErr != nil:
		return &DamageError{"backup GPT", p.backupErr.Error(), p.mend(p.backupErr, p.primary)}
	}
	return nil
}

// mend is what helps against a fault in one copy, given the other.
func (p *candidate) mend(err error, sound *tableCopy) string {
	var f fault
	if protected, readErr := protective(p.f); readErr != nil || !protected || !errors.As(err, &f) {
		return mendFetch // sfdisk sees no table then, and sgdisk follows the wrong header
	}
	return p.advise(f.mend, sound)
}

// ioOnly drops faults: they are findings, not reasons to stop.
func ioOnly(err error) error {
	var f fault
	if errors.As(err, &f) {
		return nil
	}
	return err
}

// protective reports whether sector 0 holds a DOS table with an entry of type
// 0xee. Without it neither Linux (block/partitions/efi.c, is_pmbr_valid) nor
// libblkid, hence systemd, looks for a GPT.
func protective(f *os.File) (bool, error) {
	b, err := readSector0(f)
	if err != nil || b == nil {
		return false, err
	}
	for slot := range mbrSlots {
		if mbrEntry(b, slot+1)[mbrType] == mbrProtective {
			return true, nil
		}
	}
	return false, nil
}

func fileSize(f *os.File) (int64, error) {
	fi, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file", f.Name())
	}
	return fi.Size(), nil
}
