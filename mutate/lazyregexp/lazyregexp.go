// Package lazyregexp has regular expressions that cost nothing before they are used.
//
// imgmut starts itself many times: for each guest to make its tree and as its agent, for
// each command in it. Those use none of what the engine looks for in images, and to
// compile that took longer than all else that they do.
package lazyregexp

import (
	"regexp"
	"sync"
)

// New gives a regular expression that is compiled when it is first asked for, from any
// goroutine. It panics then if that fails, as [regexp.MustCompile] does.
func New(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}
