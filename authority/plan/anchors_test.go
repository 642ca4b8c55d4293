package plan

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAnchors: given the anchors that the upstream lists ("a b") and those that are known ("a:published b:held
// c:published,unlisted=-6m,used"), want is what is done.
func TestAnchors(t *testing.T) {
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		listed, known, revoked string
		approval, first        bool
		leads                  bool
		blind                  bool
		want                   string
	}{
		"a new one":               {listed: "a b", known: "a:published", want: "publish b"},
		"nothing new":             {listed: "a", known: "a:published", leads: true, want: ""},
		"a new one with approval": {listed: "a b", known: "a:published", approval: true, want: "hold b"},
		"the first of all comes with an authority": {listed: "a b", approval: true, first: true, want: ""},
		"one that is held stays so": {
			listed: "a b", known: "a:published b:held", approval: true, leads: true, want: "",
		},
		"approval is switched off":         {listed: "a b", known: "a:published b:held", want: "publish b"},
		"a revoked one does not come back": {listed: "a b", known: "a:published", revoked: "b", want: ""},
		"a revoked one goes": {
			listed: "a b", known: "a:published b:held", revoked: "b", want: "drop b",
		},
		"one that has not looked knows nothing": {known: "a:published", leads: true, blind: true, want: ""},
		"one that is gone, to the leader": {
			listed: "a", known: "a:published b:published", leads: true, want: "unlist b",
		},
		"one that is gone, to a follower": {listed: "a", known: "a:published b:published", want: ""},
		"one that is gone, and in use": {
			listed: "a", known: "a:published b:published,unlisted=-6m,used", leads: true, want: "",
		},
		"one that is gone, and of no more use": {
			listed: "a", known: "a:published b:published,unlisted=-6m", leads: true, want: "drop b",
		},
		"one that went a moment ago": {
			listed: "a", known: "a:published b:published,unlisted=-4m", leads: true, want: "",
		},
		"one that came back": {
			listed: "a b", known: "a:published b:published,unlisted=-4m", leads: true, want: "relist b",
		},
		"one that came back, to a follower": {listed: "a b", known: "a:published b:published,unlisted=-4m", want: ""},
		"one that waits and is gone": {
			listed: "a", known: "a:published b:held,unlisted=-6m", approval: true, leads: true, want: "drop b",
		},
		"one that has expired": {listed: "a", known: "a:published b:published,expired", want: "drop b"},
		"one that has expired above what is alive": {
			listed: "a b", known: "a:published b:published,expired,used", want: "",
		},
		"an expired one is not published":           {listed: "a x", known: "a:published", want: ""},
		"an upstream that has no anchors of itself": {known: "a:published,unlisted=-6m", leads: true, want: "drop a"},
	} {
		t.Run(name, func(t *testing.T) {
			s := AnchorSituation{
				Now: now, Leads: c.leads, Approval: c.approval, First: c.first, Seen: !c.blind,
				Revoked: func(id string) bool { return strings.Contains(c.revoked, id) },
			}
			for _, id := range strings.Fields(c.listed) {
				end := now.Add(time.Hour)
				if id == "x" {
					end = now
				}
				s.Listed = append(s.Listed, ListedAnchor{ID: id, NotAfter: end})
			}
			for _, field := range strings.Fields(c.known) {
				id, how, _ := strings.Cut(field, ":")
				k := KnownAnchor{
					ID: id, NotAfter: now.Add(time.Hour), Published: strings.Contains(how, "published"),
					InUse: strings.Contains(how, "used"),
				}
				if strings.Contains(how, "expired") {
					k.NotAfter = now
				}
				if _, after, ok := strings.Cut(how, "unlisted="); ok {
					text, _, _ := strings.Cut(after, ",")
					d, err := time.ParseDuration(text)
					require.NoError(t, err)
					k.Unlisted = now.Add(d)
				}
				s.Known = append(s.Known, k)
			}
			actions, _ := Anchors(s)
			var got []string
			for _, a := range actions {
				got = append(got, fmt.Sprintf("%s %s", a.Do, a.ID))
				require.NotEmpty(t, a.Why)
			}
			require.Equal(t, c.want, strings.Join(got, ", "))
		})
	}
}
