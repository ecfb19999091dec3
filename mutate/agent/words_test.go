package agent

import "testing"

func TestCheckUnit(t *testing.T) {
	for name, right := range map[string]bool{
		"nginx.service": true, "getty@tty1.service": true, `dev-disk-by\x2dlabel-data.device`: true,
		"nginx": false, "--now.service": false, "a b.service": false, "a.svc": false, "": false,
	} {
		if err := CheckUnit(name); (err == nil) != right {
			t.Errorf("%s: %v", name, err)
		}
	}
}
