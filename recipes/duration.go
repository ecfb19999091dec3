package recipes

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Duration is a [time.Duration] that a recipe writes as "90s", "12h", "7d",
// "2w" or together, as "1w2d12h". A day has 24 hours.
type Duration time.Duration

// Duration is d as the standard library knows it.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

var weeksAndDays = lazyregexp.New(`^(?:([0-9]+)w)?(?:([0-9]+)d)?(.*)$`)

var errDuration = errors.New("want a duration such as 90s, 12h, 7d or 2w")

// ParseDuration reads what [time.ParseDuration] does, with weeks and days in
// front.
func ParseDuration(s string) (Duration, error) {
	m := weeksAndDays().FindStringSubmatch(s)
	if s == "" || m == nil {
		return 0, errDuration
	}
	var days int64
	for i, unit := range []time.Duration{7 * 24 * time.Hour, 24 * time.Hour} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.ParseInt(m[i+1], 10, 64)
		if err != nil || n > (math.MaxInt64-days)/int64(unit) {
			return 0, fmt.Errorf("%q is too long a time", shorten(s))
		}
		days += n * int64(unit)
	}
	rest := m[3]
	if rest == "" {
		return Duration(days), nil
	}
	if m[1]+m[2] != "" && strings.ContainsAny(rest[:1], "+-") {
		return 0, errDuration
	}
	d, err := time.ParseDuration(rest)
	if err != nil {
		return 0, errDuration
	}
	if int64(d) > math.MaxInt64-days {
		return 0, fmt.Errorf("%q is too long a time", shorten(s))
	}
	return Duration(days) + Duration(d), nil
}
