package record

import "time"

// Verdict is the outcome for one image.
type Verdict struct {
	OK     bool      `json:"ok"`
	Checks []Check   `json:"checks"`
	At     time.Time `json:"at"`
}

// Check is one thing that was looked at.
type Check struct {
	Name   string        `json:"name"` // what, as "partition 2: ext4"
	OK     bool          `json:"ok"`
	Detail string        `json:"detail,omitempty"` // what is wrong
	Mend   string        `json:"mend,omitempty"`   // what can be done about it
	Notes  []string      `json:"notes,omitempty"`  // what is not wrong, but good to know
	Took   time.Duration `json:"took"`             // nanoseconds
}

// Failed lists the checks that are not OK.
func (v *Verdict) Failed() []Check {
	var failed []Check
	for _, c := range v.Checks {
		if !c.OK {
			failed = append(failed, c)
		}
	}
	return failed
}
