package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/enumname"
)

// EnumName returns the name of a value of an enumeration as people write it, or "" for the zero value.
func EnumName(e protoreflect.Enum) string { return enumname.Of(e) }

// EnumValue returns the number of the value with the name s, and the names of all values.
func EnumValue(d protoreflect.EnumDescriptor, s string) (n protoreflect.EnumNumber, known []string, ok bool) {
	n, ok = enumname.Number(d, s)
	return n, enumname.All(d), ok
}

// Since returns a time as a distance from now, such as "5m ago".
func Since(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return Ago(time.Since(t.AsTime()))
}

// Ago returns how long ago something was, or how soon it will be.
func Ago(d time.Duration) string {
	switch {
	case d <= -time.Second:
		return "in " + roughly(-d)
	case d < 0:
		return "now"
	case d < time.Second:
		return "just now"
	}
	return roughly(d) + " ago"
}

// roughly returns a duration with the precision that matters to people: 42s, 5m, 3h20m, 12d.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < day:
		if m := d % time.Hour / time.Minute; m > 0 {
			return fmt.Sprintf("%dh%dm", d/time.Hour, m)
		}
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/day)
}

// Time returns a time with its distance from now.
func Time(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s (%s)", t.AsTime().UTC().Format(time.RFC3339), Since(t))
}

// Duration returns a duration as flags accept it: 1h, 90s.
func Duration(d *durationpb.Duration) string {
	if d == nil {
		return ""
	}
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// YesNo returns "yes" or "no".
func YesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// Sequence returns the sequence of a bundle, or "none".
func Sequence(n *uint64) string {
	if n == nil {
		return "none"
	}
	return fmt.Sprint(*n)
}

// Locality returns a locality as people write it: REGION/ZONE/SUB-ZONE.
func Locality(l *ententev1.Locality) string {
	return strings.TrimRight(strings.Join([]string{l.GetRegion(), l.GetZone(), l.GetSubZone()}, "/"), "/")
}

// Printable escapes what a terminal would interpret: names and messages can come from other clusters.
func Printable(s string) string {
	if utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return b.String()
}
