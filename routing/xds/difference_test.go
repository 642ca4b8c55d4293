package xds

import (
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// resources parses "name=version …". The version absentVersion stands for a resource that does not exist.
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

func (u *update) transcript() string {
	if u == nil {
		return "nothing"
	}
	var parts []string
	for _, r := range u.send {
		parts = append(parts, r.name+"="+r.version)
	}
	for _, name := range u.removed {
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
			u := difference(c.of, c.delta, resources(c.wanted), versions(c.has), nacks{})
			require.Equal(t, c.want, u.transcript())
			if u != nil {
				again := difference(c.of, c.delta, resources(c.wanted), u.has, nacks{})
				require.Nil(t, again, "the same is sent twice: %s", again.transcript())
			}
		})
	}
}

func TestRemovedRouteTableIsSentEmpty(t *testing.T) {
	gone, err := resourceOf(typedName{Routes, "shop"}, nil)
	require.NoError(t, err)
	wanted := map[string]*resource{"shop": gone}
	u := difference(Routes, false, wanted, versions("shop=1"), nacks{})
	require.NotNil(t, u)
	require.Len(t, bodies(u.send), 1)
	require.Nil(t, difference(Routes, false, wanted, u.has, nacks{}))
	require.Nil(t, difference(Routes, false, wanted, nil, nacks{}), "a table that never existed is not sent")
}

// TestLongReasonNamesNothing: a client cannot make the cluster search megabytes for thousands of names.
func TestLongReasonNamesNothing(t *testing.T) {
	c := &Cache{builder: builder{config: Config{Logger: hclog.NewNullLogger()}}}
	var err error
	c.metrics, err = newMetrics(nil, c)
	require.NoError(t, err)
	changed := map[string]*resource{"shop": {name: "shop", version: "1"}, "cart": {name: "cart", version: "1"}}
	sub := &subscription{sent: sent{nonce: "1", changed: changed}}
	s := &stream{variant: &variant{}, subscriptions: map[Type]*subscription{Endpoints: sub}}
	c.settle(s, Endpoints, &discovery.DiscoveryRequest{
		ResponseNonce: "1", ErrorDetail: &rpcstatus.Status{Message: strings.Repeat(" ", maxReason) + "shop"},
	})
	require.True(t, sub.nacks.has("shop", "1"))
	require.True(
		t,
		sub.nacks.has("cart", "1"),
		"the name is behind the part that is read, so that both count as rejected",
	)
}

// TestRejectedVersionIsNotSentAgain: the client keeps what it accepted, and is sent versions after the rejected one.
func TestRejectedVersionIsNotSentAgain(t *testing.T) {
	var r nacks
	first := resources("a=1 b=1")
	r.accept(first)
	bad := resources("a=2 b=2")
	require.Equal(t, []string{"a"}, r.reject(bad, `resource "a": no such thing`))

	u := difference(Clusters, false, resources("a=2 b=3"), versions("a=2 b=2"), r)
	require.Equal(t, "a=1 b=3", u.transcript(), "without a, the client would delete it")
	require.Nil(t, difference(Clusters, false, resources("a=2 b=3"), u.has, r))
	require.Equal(t, "a=3 b=3", difference(Clusters, false, resources("a=3 b=3"), u.has, r).transcript())

	require.Nil(t, difference(Clusters, true, resources("a=2"), versions("a=3"), r), "it is the rejected version again")
	require.Equal(t, "a=3", difference(Clusters, true, resources("a=3"), versions("a=2"), r).transcript())

	var unnamed nacks
	require.Equal(t, []string{"a", "b"}, unnamed.reject(bad, "NO"))
	for i := range 3 * maxNacks {
		unnamed.reject(map[string]*resource{"a": {name: "a", version: strings.Repeat("x", i)}}, "a")
	}
	require.LessOrEqual(t, len(unnamed.versions["a"]), maxNacks)
}
