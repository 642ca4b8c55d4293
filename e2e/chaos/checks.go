package chaos

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// CheckSeen returns where a member answered with less than it had answered before the request began.
func (h *History) CheckSeen() (wrong []string) {
	type source struct{ member, what string }
	sources := map[source][]Seen{}
	for _, s := range h.Seen {
		sources[source{s.Member, s.What}] = append(sources[source{s.Member, s.What}], s)
	}
	for of, begun := range sources {
		ended := slices.Clone(begun)
		slices.SortStableFunc(begun, func(a, b Seen) int { return cmp.Compare(a.Call, b.Call) })
		slices.SortStableFunc(ended, func(a, b Seen) int { return cmp.Compare(a.Return, b.Return) })
		var highest Seen
		for _, s := range begun {
			for len(ended) > 0 && ended[0].Return < s.Call {
				if ended[0].Value > highest.Value {
					highest = ended[0]
				}
				ended = ended[1:]
			}
			if s.Value < highest.Value {
				wrong = append(
					wrong,
					fmt.Sprintf("%s answered %s %d at %s, after %d at %s", of.member, of.what, s.Value,
						s.Call, highest.Value, highest.Return),
				)
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// CheckReady returns where a member refused a request while it was ready before and after it, and lived on.
func (h *History) CheckReady() (wrong []string) {
	for _, a := range h.Asked {
		interrupted := slices.ContainsFunc(h.Lives, func(l Life) bool {
			return l.Member == a.Member && a.Call <= l.At && l.At <= a.Return
		})
		if a.Refusal != "" && !interrupted {
			wrong = append(wrong, fmt.Sprintf("%s was ready at %s and %s, and refused: %s", a.Member, a.Call, a.Return,
				a.Refusal))
		}
	}
	return wrong
}

// CheckIssued returns the serial numbers that one authority gave twice.
func (h *History) CheckIssued() (wrong []string) {
	type number struct{ authority, serial string }
	given := map[number]string{}
	for _, i := range h.Issued {
		n := number{i.Authority, i.Serial}
		if by, twice := given[n]; twice {
			wrong = append(
				wrong,
				fmt.Sprintf("authority %s gave serial %s twice, through %s and %s", i.Authority, i.Serial,
					by, i.Member),
			)
		}
		given[n] = i.Member
	}
	return wrong
}

// CheckWrites compares what each member has at the end with the attempts to write. An acknowledged row is there, unless
// a restore may have taken it, and no row is there that nobody wrote.
func (h *History) CheckWrites(found map[string]map[string]bool) (wrong []string) {
	attempted := map[string]bool{}
	for _, w := range h.Writes {
		attempted[w.Row] = true
	}
	for member, rows := range found {
		for _, w := range h.Writes {
			if w.Acknowledged && !rows[w.Row] && !h.lost(w.Span) {
				wrong = append(wrong, fmt.Sprintf("%s lost row %s, whose write was acknowledged at %s", member, w.Row,
					w.Return))
			}
		}
		for row := range rows {
			if !attempted[row] {
				wrong = append(wrong, fmt.Sprintf("%s has row %s, which nobody wrote", member, row))
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// CheckSame returns which members differ in what they have at the same revision.
func CheckSame(content map[string]string) (wrong []string) {
	var first string
	for _, member := range slices.Sorted(maps.Keys(content)) {
		switch {
		case first == "":
			first = member
		case content[member] != content[first]:
			wrong = append(wrong, fmt.Sprintf("%s differs from %s: %s", member, first,
				firstDifference(content[first], content[member])))
		}
	}
	return wrong
}

// CheckWriteReadiness returns where a member went on to claim that it can write for longer than a limit while no write
// through it succeeded. Members that were stopped, paused or started meanwhile do not count.
func (h *History) CheckWriteReadiness(limit time.Duration) (wrong []string) {
	members := map[string][]Health{}
	for _, a := range h.Health {
		members[a.Member] = append(members[a.Member], a)
	}
	for _, member := range slices.Sorted(maps.Keys(members)) {
		answers := members[member]
		slices.SortStableFunc(answers, func(a, b Health) int { return cmp.Compare(a.Call, b.Call) })
		var since time.Duration // the first refusal of a row of refusals under a claim to be ready
		refusing := false
		for _, a := range answers {
			span := Span{since, a.Return}
			interrupted := slices.ContainsFunc(h.Lives, func(l Life) bool {
				return l.Member == member && span.Call <= l.At && l.At <= span.Return
			})
			switch {
			case !a.Ready || a.Refusal == "" || refusing && interrupted:
				refusing = false
			case !refusing:
				refusing, since = true, a.Call
			case a.Call-since > limit:
				wrong = append(
					wrong,
					fmt.Sprintf("%s was ready to write at %s, and refused since %s: %s", member, a.Call,
						since, a.Refusal),
				)
				refusing = false
			}
		}
	}
	return wrong
}

// firstDifference returns the parts of two texts around the first byte in which they differ.
func firstDifference(a, b string) string {
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	part := func(s string) string { return s[max(0, min(at, len(s))-20):min(len(s), at+60)] }
	return fmt.Sprintf("%q instead of %q", part(b), part(a))
}
