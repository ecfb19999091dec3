package etc

import "strings"

// conditionsHold says whether the conditions and assertions of a unit hold that
// ask for paths of the tree. The others, and those of what is fresh at each start,
// are taken to hold.
func (s *system) conditionsHold(u *unit) bool {
	for _, kind := range []string{"Unit.Condition", "Unit.Assert"} {
		all, anyAsked, anyHolds := true, false, false
		for _, set := range u.settings {
			test, ok := strings.CutPrefix(set.key, kind)
			if !ok {
				continue
			}
			if set.value == "" { // all that were before, of any test
				all, anyAsked, anyHolds = true, false, false
				continue
			}
			value, trigger := strings.CutPrefix(set.value, "|")
			holds := s.conditionHolds(test, strings.TrimLeft(value, blank))
			if trigger {
				anyAsked, anyHolds = true, anyHolds || holds
			} else {
				all = all && holds
			}
		}
		if !all || anyAsked && !anyHolds {
			return false
		}
	}
	return true
}

// conditionHolds is for one test, as PathExists, of a path that may be negated.
func (s *system) conditionHolds(test, value string) bool {
	place, negated := strings.CutPrefix(value, "!")
	place = strings.TrimLeft(place, blank)
	if !strings.HasPrefix(place, "/") || isFresh(place) {
		return true
	}
	holds := false
	fi, err := s.files.stat(place)
	switch test {
	case "PathExists":
		holds = err == nil
	case "PathIsDirectory":
		holds = err == nil && fi.IsDir()
	case "FileNotEmpty":
		holds = err == nil && fi.Mode().IsRegular() && fi.Size() > 0
	case "FileIsExecutable":
		holds = err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
	case "PathIsSymbolicLink":
		name, err := s.files.resolve(".", place, false)
		holds = err == nil && s.files.readLink(name) != ""
	case "DirectoryNotEmpty":
		entries, err := s.files.list(place)
		holds = err == nil && len(entries) > 0
	default:
		return true
	}
	if skipAbsent(err) != nil {
		return true // it cannot be known
	}
	return holds != negated
}

// isFresh says whether a place is below those that each start makes anew.
func isFresh(place string) bool {
	for _, top := range []string{"/proc", "/sys", "/dev", "/run"} {
		if place == top || strings.HasPrefix(place, top+"/") {
			return true
		}
	}
	return false
}
