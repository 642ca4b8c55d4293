package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSuccession(t *testing.T) {
	const day = 24 * time.Hour
	begin := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	at := func(days int) time.Time { return begin.Add(time.Duration(days) * day) }
	root := func(id string, days int) Root { return Root{ID: id, NotBefore: at(days), NotAfter: at(days + 80)} }
	none := Root{}
	for name, c := range map[string]struct {
		s    Succession
		do   AnchorVerb
		why  string
		next time.Time
	}{
		"no authority yet": {s: Succession{Now: at(0)}},
		"a new root":       {s: Succession{Now: at(1), Present: root("a", 0)}, next: at(20)},
		"a quarter of its life": {
			s:  Succession{Now: at(20), Present: root("a", 0)},
			do: PublishAnchor, why: "it takes over when half of the life of the present root has passed",
		},
		"late, after an outage of the member": {
			s:  Succession{Now: at(60), Present: root("a", 0)},
			do: PublishAnchor, why: "it takes over when half of the life of the present root has passed",
		},
		"after its end":         {s: Succession{Now: at(80), Present: root("a", 0)}},
		"it signs nothing more": {s: Succession{Now: at(30), Present: root("a", 0), Ends: true}},
		"published": {
			s:    Succession{Now: at(30), Present: root("a", 0), Successor: root("b", 20), HasKey: true},
			next: at(60),
		},
		"published, and the present root ends": {
			s:    Succession{Now: at(30), Present: root("a", 0), Ends: true, Successor: root("b", 20), HasKey: true},
			next: at(60),
		},
		"published, and the member has no authority any more": {
			s: Succession{Now: at(50), Present: none, Successor: root("b", 20), HasKey: true}, next: at(60),
		},
		"never used": {
			s:  Succession{Now: at(60), Present: root("a", 0), Successor: root("b", 20), HasKey: true},
			do: DropAnchor, why: "half of its life has passed, and nothing was signed below it",
		},
		"its key is lost": {
			s:  Succession{Now: at(30), Present: root("a", 0), Successor: root("b", 20)},
			do: DropAnchor, why: "its member does not have its key",
		},
	} {
		do, why, next := c.s.Next()
		require.Equal(t, c.do, do, name)
		require.Equal(t, c.why, why, name)
		require.Equal(t, c.next, next, name)
	}
}

func TestLostSuccessor(t *testing.T) {
	now := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	alive := Root{ID: "a", NotBefore: now, NotAfter: now.Add(time.Hour)}
	over := Root{ID: "a", NotBefore: now.Add(-time.Hour), NotAfter: now.Add(-ClockTolerance)}
	for name, c := range map[string]struct {
		member bool
		root   Root
		why    string
		next   time.Time
	}{
		"a member's":           {true, alive, "", now.Add(time.Hour + ClockTolerance)},
		"of a removed member":  {false, alive, "its member was removed", Never},
		"a member's, expired":  {true, over, "it has expired and its member did not drop it", Never},
		"of a former, expired": {false, over, "its member was removed", Never},
	} {
		why, next := LostSuccessor(now, c.member, c.root)
		require.Equal(t, c.why, why, name)
		require.Equal(t, c.next, next, name)
	}
}

// Every root signs after it was published for the lead, over many rotations, whenever a signing certificate is renewed.
func TestEveryRootIsPublishedBeforeItSigns(t *testing.T) {
	const life, ca, step = 80 * 24 * time.Hour, 10 * 24 * time.Hour, time.Hour
	begin := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	for _, renewal := range []time.Duration{ca / 2, ca/2 - 7*time.Hour, ca * 2 / 5, step} {
		s := Succession{Now: begin, HasKey: true}
		roots := 0
		root := func() Root {
			roots++
			return Root{ID: fmt.Sprint(roots), NotBefore: s.Now, NotAfter: s.Now.Add(life)}
		}
		s.Present = root()
		var published time.Time
		renewed := begin
		for s.Now.Before(begin.Add(5 * life)) {
			if s.Now.Sub(renewed) >= renewal {
				renewed = s.Now
				if !s.Now.Before(s.Present.SignsUntil()) {
					require.NotEmpty(t, s.Successor.ID)
					require.GreaterOrEqual(t, s.Now.Sub(published), RootLead(life, ca), "renewal every %v", renewal)
					s.Present, s.Successor = s.Successor, Root{}
				}
			}
			if do, why, _ := s.Next(); do == PublishAnchor {
				s.Successor, published = root(), s.Now
			} else {
				require.Empty(t, do, why)
			}
			s.Now = s.Now.Add(step)
		}
		require.GreaterOrEqual(t, roots, 16)
	}
}
