package xds

import (
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
)

// resources reads "name=version …"; a version of absentVersion stands for what does not exist.
func resources(text string) map[string]*resource {
	out := map[string]*resource{}
	for _, field := range strings.Fields(text) {
		name, version, _ := strings.Cut(field, "=")
		r := &resource{name: name, version: version, absent: version == absentVersion}
		if !r.absent {
			r.body = &anypb.Any{}
		}
		out[name] = r
	}
	return out
}

func versions(text string) map[string]string {
	out := map[string]string{}
	for _, field := range strings.Fields(text) {
		name, version, _ := strings.Cut(field, "=")
		out[name] = version
	}
	return out
}

func (a *answer) transcript() string {
	if a == nil {
		return "nothing"
	}
	var parts []string
	for _, r := range a.send {
		parts = append(parts, r.name+"="+r.version)
	}
	for _, name := range a.removed {
		parts = append(parts, "-"+name)
	}
	return strings.Join(parts, " ")
}

func TestDifference(t *testing.T) {
	for name, c := range map[string]struct {
		of          Type
		delta       bool
		wanted, has string
		want        string
	}{
		"whole: the first time":                {Clusters, false, "a=1 b=1", "", "a=1 b=1"},
		"whole: no news":                       {Clusters, false, "a=1 b=1", "a=1 b=1", "nothing"},
		"whole: one change sends all":          {Clusters, false, "a=2 b=1", "a=1 b=1", "a=2 b=1"},
		"whole: what is absent is left out":    {Clusters, false, "a=1 b=absent", "a=1 b=1", "a=1"},
		"whole: absence is told at once":       {Clusters, false, "b=absent", "", ""},
		"whole: absence is told once":          {Clusters, false, "b=absent", "b=absent", "nothing"},
		"whole: one of all is gone":            {Clusters, false, "a=1", "a=1 b=1", "a=1"},
		"partial: the first time":              {Endpoints, false, "a=1 b=1", "", "a=1 b=1"},
		"partial: only what changed":           {Endpoints, false, "a=2 b=1", "a=1 b=1", "a=2"},
		"partial: no news":                     {Endpoints, false, "a=1", "a=1", "nothing"},
		"partial: what never was is not told":  {Secrets, false, "a=absent", "", "nothing"},
		"delta: the first time":                {Clusters, true, "a=1 b=1", "", "a=1 b=1"},
		"delta: only what changed":             {Clusters, true, "a=2 b=1", "a=1 b=1", "a=2"},
		"delta: what is gone":                  {Clusters, true, "a=1 b=absent", "a=1 b=1", "-b"},
		"delta: what never was is told once":   {Clusters, true, "b=absent", "", "-b"},
		"delta: and not again":                 {Clusters, true, "b=absent", "b=absent", "nothing"},
		"delta: one of all is gone":            {Clusters, true, "a=1", "a=1 b=1", "-b"},
		"delta: back with the versions it had": {Clusters, true, "a=1 b=2", "a=1 b=1", "b=2"},
	} {
		t.Run(name, func(t *testing.T) {
			a := difference(c.of, c.delta, resources(c.wanted), versions(c.has), refusals{})
			require.Equal(t, c.want, a.transcript())
			if a != nil {
				again := difference(c.of, c.delta, resources(c.wanted), a.has, refusals{})
				require.Nil(t, again, "the same is told twice: %s", again.transcript())
			}
		})
	}
}

func TestAVanishedRouteTableIsSentEmpty(t *testing.T) {
	gone, err := resourceOf(typedName{Routes, "shop"}, nil)
	require.NoError(t, err)
	wanted := map[string]*resource{"shop": gone}
	a := difference(Routes, false, wanted, versions("shop=1"), refusals{})
	require.NotNil(t, a)
	require.Len(t, bodies(a.send), 1)
	require.Nil(t, difference(Routes, false, wanted, a.has, refusals{}))
	require.Nil(t, difference(Routes, false, wanted, nil, refusals{}), "what never was is not told of")
}

// TestWhatIsRefusedIsNotSentAgain: the client goes on with what it accepted, and gets what comes after the refused version.
// TestALongReasonNamesNobody: a client cannot make the cluster search megabytes for thousands of names.
func TestALongReasonNamesNobody(t *testing.T) {
	c := &Cache{config: Config{}, log: hclog.NewNullLogger()}
	var err error
	c.metrics, err = newMetrics(nil, c)
	require.NoError(t, err)
	changed := map[string]*resource{"shop": {name: "shop", version: "1"}, "cart": {name: "cart", version: "1"}}
	s := &stream{variant: &variant{}, asked: map[Type]*asked{Endpoints: {sent: sent{nonce: "1", changed: changed}}}}
	c.settle(s, Endpoints, "1", true, strings.Repeat(" ", maxReason)+"shop")
	require.True(t, s.asked[Endpoints].refusals.has("shop", "1"))
	require.True(t, s.asked[Endpoints].refusals.has("cart", "1"), "the name stands behind what is read, so that both are suspected")
}

func TestWhatIsRefusedIsNotSentAgain(t *testing.T) {
	var r refusals
	first := resources("a=1 b=1")
	r.accept(first)
	bad := resources("a=2 b=2")
	require.Equal(t, []string{"a"}, r.refuse(bad, `resource "a": no such thing`))

	a := difference(Clusters, false, resources("a=2 b=3"), versions("a=2 b=2"), r)
	require.Equal(t, "a=1 b=3", a.transcript(), "left out, a would be gone from the client")
	require.Nil(t, difference(Clusters, false, resources("a=2 b=3"), a.has, r))
	require.Equal(t, "a=3 b=3", difference(Clusters, false, resources("a=3 b=3"), a.has, r).transcript())

	require.Nil(t, difference(Clusters, true, resources("a=2"), versions("a=3"), r), "it came back to what was refused")
	require.Equal(t, "a=3", difference(Clusters, true, resources("a=3"), versions("a=2"), r).transcript())

	var unnamed refusals
	require.Equal(t, []string{"a", "b"}, unnamed.refuse(bad, "I do not like it"))
	for i := range 3 * maxRefused {
		unnamed.refuse(map[string]*resource{"a": {name: "a", version: strings.Repeat("x", i)}}, "a")
	}
	require.LessOrEqual(t, len(unnamed.versions["a"]), maxRefused)
}
