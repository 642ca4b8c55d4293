package xds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// maxShare is what one identity has at most.
const maxShare = maxGroups / shares

// alone is a relay whose identities reach no member.
type alone struct {
	*Relay
	opened, closed atomic.Int64 // connections
}

func newAlone(t *testing.T) *alone {
	t.Helper()
	a := &alone{Relay: New(Config{Logger: hclog.NewNullLogger()})}
	t.Cleanup(a.Close)
	return a
}

func (a *alone) subscribe(identity string, node *core.Node) (discovery.Source, error) {
	return a.Subscribe(identity, node, func() (grpc.ClientConnInterface, func(), error) {
		conn, err := grpc.NewClient("passthrough:///nobody", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
				return nil, errors.New("no member answers")
			}))
		a.opened.Add(1)
		return conn, func() { a.closed.Add(1); _ = conn.Close() }, err
	})
}

// kind returns a node of one of many kinds.
func kind(i int) *core.Node {
	return &core.Node{Locality: &core.Locality{Region: "eu", Zone: strconv.Itoa(i)}}
}

// TestIdentityHasAShare: an identity whose programs are of ever more kinds leaves streams to all others, over one
// connection. What is no longer used gives way.
func TestIdentityHasAShare(t *testing.T) {
	a := newAlone(t)
	var sources []discovery.Source
	for i := range maxShare {
		s, err := a.subscribe("spiffe://x/greedy", kind(i))
		require.NoError(t, err)
		sources = append(sources, s)
	}
	_, err := a.subscribe("spiffe://x/greedy", kind(maxShare))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, `the programs of "spiffe://x/greedy" have 16 streams of routes on this node, one `+
		`for each locality and listener, and can have no more: all together have 16 of 1024`)
	_, err = a.subscribe("spiffe://x/greedy", kind(0))
	require.NoError(t, err, "a kind that has a stream")
	_, err = a.subscribe("spiffe://x/other", kind(0))
	require.NoError(t, err)
	require.EqualValues(t, 2, a.opened.Load(), "a connection for each identity")

	sources[3].Close()
	_, err = a.subscribe("spiffe://x/greedy", kind(maxShare))
	require.NoError(t, err, "in the place of one that ended")
	require.Len(t, a.groups, maxShare+1)
	require.EqualValues(t, 0, a.closed.Load())
	a.Close()
	require.EqualValues(t, 2, a.closed.Load())
	require.Empty(t, a.connections)
}

// TestIdentitiesTogetherLeaveRoom: as many identities as take all they can leave room for others.
func TestIdentitiesTogetherLeaveRoom(t *testing.T) {
	const greedy = 200 // far more than a machine has
	a := newAlone(t)
	for i := range greedy {
		for j := range maxShare {
			if _, err := a.subscribe(fmt.Sprint("spiffe://x/greedy-", i), kind(j)); err != nil {
				require.Equal(t, codes.ResourceExhausted, status.Code(err))
				require.Positive(t, j, "each has one")
				break
			}
		}
	}
	require.Less(t, len(a.groups), maxGroups)
	for i := len(a.groups); i < maxGroups; i++ {
		_, err := a.subscribe(fmt.Sprint("spiffe://x/", i), kind(0))
		require.NoError(t, err)
	}
	_, err := a.subscribe("spiffe://x/last", kind(0))
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
	require.ErrorContains(t, err, "all together have 1024 of 1024")
}

// TestRelayOfOneConnection: there are no streams of others to be taken.
func TestRelayOfOneConnection(t *testing.T) {
	a := newAlone(t)
	for i := range maxShare + 1 {
		_, err := a.subscribe("", kind(i))
		require.NoError(t, err)
	}
}

// TestKindIsWhatMembersRead: programs share a stream whatever else they send.
func TestKindIsWhatMembersRead(t *testing.T) {
	a := newAlone(t)
	metadata := func(key, value string) *core.Node {
		n := &core.Node{ClientFeatures: []string{xdsupdate.NoOverprovisioning}}
		n.Metadata = a.reduced(&core.Node{}).GetMetadata()
		n.Metadata.Fields[key] = structpb.NewStringValue(value)
		return n
	}
	js := func(version string) *core.Node {
		return &core.Node{
			ClientFeatures: []string{xdsupdate.NoOverprovisioning}, UserAgentName: xdsupdate.NodeJS + version,
		}
	}
	for i, nodes := range [][]*core.Node{
		{
			{}, {Id: "a", Cluster: "b"}, {UserAgentName: "c"}, {Locality: &core.Locality{}},
			{ClientFeatures: []string{"d"}},
		},
		{
			metadata("x", "y"), metadata(xdsupdate.OutboundKey, "127.0.0.1:1"), metadata(xdsupdate.OutboundKey, "2"),
			{ClientFeatures: []string{"e", xdsupdate.NoOverprovisioning}, UserAgentName: "gRPC Go"},
		},
		{js(""), js(" 1"), js(" 2")},
		{metadata(xdsupdate.RootsKey, "file_per_domain")},
		{kind(1)},
		{kind(2)},
	} {
		for _, node := range nodes {
			_, err := a.subscribe("spiffe://x/shop", node)
			require.NoError(t, err)
			require.Len(t, a.groups, i+1, "%v", node)
		}
	}
}

// TestSweepWithoutAMember: what was received stays while no member answers. A stream that received nothing ends.
func TestSweepWithoutAMember(t *testing.T) {
	g := newGroup(Config{MaxStale: time.Hour}, "spiffe://x/shop", nil)
	defer g.age.Stop()
	later := time.Now().Add(linger + time.Minute)
	g.use(1)
	require.False(t, g.sweep(later), "a program waits")
	g.use(-1)
	require.False(t, g.sweep(time.Now()), "a program may come back")
	require.True(t, g.sweep(later))
	g.resources[typed{xdsupdate.Endpoints, "shop"}] = &xdsupdate.Resource{Name: "shop"}
	require.False(t, g.sweep(later))
	g.reached()
	require.True(t, g.sweep(later), "a member sends it again")
}
