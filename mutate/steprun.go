package mutate

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
)

// StepError says which step of a recipe went wrong.
type StepError struct {
	Index   int // 1-based
	Name    string
	Kind    string
	Network bool     // the step had the network
	Tail    []string // the last lines it printed
	Err     error
}

func (e *StepError) Error() string { return fmt.Sprintf("step %d (%s): %v", e.Index, e.Name, e.Err) }

func (e *StepError) Unwrap() error { return e.Err }

// Fault implements the method of package fault.
func (e *StepError) Fault() string { return string(fault.Step) }

// noNetwork is what programs print where no name resolves and no address is
// reachable. Most print what getaddrinfo(3) or connect(2) told them.
var noNetwork = regexp.MustCompile(`(?i)` + strings.Join([]string{
	// glibc and musl
	`temporary failure in name resolution`, `name or service not known`, `no address associated with hostname`,
	`name does not resolve`, `network is unreachable`,
	// apt; curl, git, dnf and ssh; cargo; wget and that of busybox; apk
	`temporary failure resolving`, `could not resolve`, `couldn't resolve host`, `unable to resolve host`,
	`bad address '`, `dns lookup error`, `dns: transient error`,
	// Go; Node.js; Java; Rust; PHP; ping
	`dial tcp: lookup `, `no such host`, `\bENOTFOUND\b`, `\bEAI_AGAIN\b`, `\bENETUNREACH\b`, `UnknownHostException`,
	`failed to lookup address information`, `getaddrinfo failed`, `unknown host`,
}, "|"))

// knownFailures are what programs print when a step lacks what a recipe can
// give it, which they cannot know of.
var knownFailures = []struct {
	network bool // the step had the network
	printed *regexp.Regexp
	hint    string
}{
	{false, noNetwork, "a step has no network unless it says network: true"},
	{true, regexp.MustCompile(`Unable to locate package|has no installation candidate`),
		"the image has no package lists, or old ones: say update: true"},
}

// Hint is what the recipe can do about it, if that shows.
func (e *StepError) Hint() string {
	for _, k := range knownFailures {
		if k.network == e.Network && slices.ContainsFunc(e.Tail, k.printed.MatchString) {
			return k.hint
		}
	}
	if fault.Of(e.Err) == fault.Host && errors.Is(e.Err, syscall.ENOSPC) && fault.Mend(e.Err) == "" {
		return fullImage // the store would have said more than an errno
	}
	return ""
}

// fullImage is the mend for a filesystem of the image that is full.
const fullImage = "the image's own filesystem is full: use a larger base"

// scopedGuest is the guest as one step sees it: with the step's environment,
// network and time, and its output going to the step's lines.
type scopedGuest struct {
	*guest.Guest
	env      map[string]string
	network  bool
	timeout  time.Duration // of the whole step; 0 for none
	deadline time.Time     // when it is over
	out      *lineWriter
}

// Run implements [step.Guest].
func (s *scopedGuest) Run(ctx context.Context, c agent.Command) error {
	env := maps.Clone(s.env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, c.Env)
	c.Env = env
	if s.timeout > 0 {
		// The agent keeps the time, so that it can end the command in order. It
		// takes 0 for no limit.
		if left := max(time.Until(s.deadline), time.Millisecond); c.Timeout == 0 || left < c.Timeout {
			c.Timeout = left
		}
	}
	err := s.Exec(ctx, c, s.network, s.out.write)
	var exit *agent.ExitError
	if errors.As(err, &exit) && s.timeout > 0 && time.Now().After(s.deadline) {
		exit.Reason = fmt.Sprintf("the step was still running after %s", s.timeout)
	}
	return err
}

// Put implements [step.Guest].
func (s *scopedGuest) Put(ctx context.Context, write func(*tar.Writer) error) error {
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, s.deadline, fmt.Errorf("still copying after %s", s.timeout))
		defer cancel()
	}
	return s.Guest.Put(ctx, write)
}

// tailLines is how many lines of a failed step are told again with the error.
const tailLines = 20

// maxLine is where a longer line is cut, in bytes.
const maxLine = 4 << 10

// lineWriter cuts output into lines and remembers the last.
type lineWriter struct {
	emit func(line string)
	rest []byte
	last []string
}

func (w *lineWriter) write(b []byte) {
	w.rest = append(w.rest, b...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		next := i + 1
		if i > maxLine || i < 0 && len(w.rest) > maxLine {
			i, next = maxLine, maxLine // no newline here to leave out
		}
		if i < 0 {
			return
		}
		w.line(w.rest[:i])
		w.rest = w.rest[next:]
	}
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.line(w.rest)
		w.rest = nil
	}
}

// line passes a line on without what a terminal would obey: the last of the
// pieces that carriage returns would have written over each other.
func (w *lineWriter) line(b []byte) {
	b = bytes.TrimRight(b, "\r")
	if i := bytes.LastIndexByte(b, '\r'); i >= 0 {
		b = b[i+1:]
	}
	s := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' || r == '\uFFFD' {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(b), ""))
	w.last = append(w.last, s)
	w.last = w.last[max(0, len(w.last)-tailLines):]
	w.emit(s)
}

func (w *lineWriter) tail() []string { return slices.Clone(w.last) }
