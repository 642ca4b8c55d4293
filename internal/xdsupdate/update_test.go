package xdsupdate

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
)

// resources parses "name=version …". The version AbsentVersion stands for a resource that does not exist.
func resources(text string) map[string]*Resource {
	out := map[string]*Resource{}
	for _, field := range strings.Fields(text) {
		name, version, _ := strings.Cut(field, "=")
		r := &Resource{Name: name, Version: version, Absent: version == AbsentVersion}
		if !r.Absent {
			r.Body = &anypb.Any{}
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

func (u *Update) transcript() string {
	if u == nil {
		return "nothing"
	}
	var parts []string
	for _, r := range u.Send {
		parts = append(parts, r.Name+"="+r.Version)
	}
	for _, name := range u.Removed {
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
		"whole: the first time":                   {Clusters, false, "a=1 b=1", "", "a=1 b=1"},
		"whole: no change":                        {Clusters, false, "a=1 b=1", "a=1 b=1", "nothing"},
		"whole: one change sends all":             {Clusters, false, "a=2 b=1", "a=1 b=1", "a=2 b=1"},
		"whole: what is absent is left out":       {Clusters, false, "a=1 b=absent", "a=1 b=1", "a=1"},
		"whole: absence is sent at once":          {Clusters, false, "b=absent", "", ""},
		"whole: absence is sent once":             {Clusters, false, "b=absent", "b=absent", "nothing"},
		"whole: one of all is gone":               {Clusters, false, "a=1", "a=1 b=1", "a=1"},
		"partial: the first time":                 {Endpoints, false, "a=1 b=1", "", "a=1 b=1"},
		"partial: only what changed":              {Endpoints, false, "a=2 b=1", "a=1 b=1", "a=2"},
		"partial: no change":                      {Endpoints, false, "a=1", "a=1", "nothing"},
		"partial: what never existed is not sent": {Secrets, false, "a=absent", "", "nothing"},
		"delta: the first time":                   {Clusters, true, "a=1 b=1", "", "a=1 b=1"},
		"delta: only what changed":                {Clusters, true, "a=2 b=1", "a=1 b=1", "a=2"},
		"delta: what is gone":                     {Clusters, true, "a=1 b=absent", "a=1 b=1", "-b"},
		"delta: what never existed is sent once":  {Clusters, true, "b=absent", "", "-b"},
		"delta: and not again":                    {Clusters, true, "b=absent", "b=absent", "nothing"},
		"delta: one of all is gone":               {Clusters, true, "a=1", "a=1 b=1", "-b"},
		"delta: back with the versions it had":    {Clusters, true, "a=1 b=2", "a=1 b=1", "b=2"},
	} {
		t.Run(name, func(t *testing.T) {
			u := Difference(c.of, c.delta, resources(c.wanted), versions(c.has), Nacks{})
			require.Equal(t, c.want, u.transcript())
			if u != nil {
				again := Difference(c.of, c.delta, resources(c.wanted), u.Has, Nacks{})
				require.Nil(t, again, "the same is sent twice: %s", again.transcript())
			}
		})
	}
}

// TestRejectedVersionIsNotSentAgain: the client keeps what it accepted, and is sent versions after the rejected one.
func TestRejectedVersionIsNotSentAgain(t *testing.T) {
	var r Nacks
	first := resources("a=1 b=1")
	r.Accept(first)
	bad := resources("a=2 b=2")
	require.Equal(t, []string{"a"}, r.Reject(bad, `resource "a": no such thing`))

	u := Difference(Clusters, false, resources("a=2 b=3"), versions("a=2 b=2"), r)
	require.Equal(t, "a=1 b=3", u.transcript(), "without a, the client would delete it")
	require.Nil(t, Difference(Clusters, false, resources("a=2 b=3"), u.Has, r))
	require.Equal(t, "a=3 b=3", Difference(Clusters, false, resources("a=3 b=3"), u.Has, r).transcript())

	require.Nil(t, Difference(Clusters, true, resources("a=2"), versions("a=3"), r), "it is the rejected version again")
	require.Equal(t, "a=3", Difference(Clusters, true, resources("a=3"), versions("a=2"), r).transcript())

	var unnamed Nacks
	require.Equal(t, []string{"a", "b"}, unnamed.Reject(bad, "NO"))
	for i := range 3 * maxNacks {
		unnamed.Reject(map[string]*Resource{"a": {Name: "a", Version: strings.Repeat("x", i)}}, "a")
	}
	require.LessOrEqual(t, len(unnamed.versions["a"]), maxNacks)
}

// TestRemovedResourceIsSentEmpty: a state-of-the-world stream cannot express that a route table or an assignment is
// gone.
func TestRemovedResourceIsSentEmpty(t *testing.T) {
	for _, of := range []Type{Routes, Endpoints} {
		gone, err := Missing(of, "shop")
		require.NoError(t, err)
		wanted := map[string]*Resource{"shop": gone}
		u := Difference(of, false, wanted, versions("shop=1"), Nacks{})
		require.NotNil(t, u)
		require.Len(t, Bodies(u.Send), 1)
		require.Nil(t, Difference(of, false, wanted, u.Has, Nacks{}))
		require.Nil(t, Difference(of, false, wanted, nil, Nacks{}), "what never existed is not sent")
	}
}

// TestLongReasonNamesNothing: a client cannot have megabytes searched for thousands of names.
func TestLongReasonNamesNothing(t *testing.T) {
	changed := resources("shop=1 cart=1")
	var n Nacks
	require.Equal(t, []string{"cart", "shop"}, n.Reject(changed, strings.Repeat(" ", maxReason)+"shop"))
	require.True(t, n.has("shop", "1"))
	require.True(t, n.has("cart", "1"))
}
