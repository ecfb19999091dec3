package boot

// condition is an if that is open. It is not evaluated: each of its branches
// begins with the values from before it, and behind it the last one counts that
// any branch gave a variable.
type condition struct {
	before map[string]*string // nil for a variable that had no value
	after  map[string]string
}

// maxConditions is how deep they are followed, and noteCost what it costs to take
// a value from one to that around it, in bytes that may be read.
const (
	maxConditions = 16
	noteCost      = 32
)

// note keeps what a branch changes.
func (c *condition) note(name, value string, variables map[string]string) {
	if c.after == nil {
		c.before, c.after = map[string]*string{}, map[string]string{}
	}
	if _, ok := c.before[name]; !ok {
		c.before[name] = nil
		if was, ok := variables[name]; ok {
			c.before[name] = &was
		}
	}
	c.after[name] = value
}

// turn follows a condition to its next branch, or its end.
func (g *grub) turn(keyword string) {
	n := len(g.conditions)
	switch {
	case keyword == "if" && n < maxConditions:
		g.conditions = append(g.conditions, condition{})
	case keyword == "if":
		g.tooDeep++
	case keyword == "fi" && g.tooDeep > 0:
		g.tooDeep--
	case n == 0 || g.tooDeep > 0:
	case keyword == "else" || keyword == "elif":
		c := &g.conditions[n-1]
		for name, was := range c.before {
			if was == nil {
				delete(g.variables, name)
			} else {
				g.variables[name] = *was
			}
		}
		clear(c.before)
	case keyword == "fi":
		c := g.conditions[n-1]
		g.conditions = g.conditions[:n-1]
		for name, value := range c.after {
			if n > 1 && g.spend(noteCost) {
				g.conditions[n-2].note(name, value, g.variables)
			}
			g.variables[name] = value
		}
	}
}
