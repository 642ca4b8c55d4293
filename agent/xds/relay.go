package xds

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/ententehq/entente/agent/discovery"
	"github.com/ententehq/entente/internal/xdsupdate"
)

// DefaultMaxStale is the default of [Config.MaxStale]: the default lifetime of an X509-SVID, after which a caller has
// no valid one anyway if no member answers.
const DefaultMaxStale = time.Hour

// Config configures a [Relay].
type Config struct {
	// MaxStale is for how long instances of foreign domains are kept without a stream to a member.
	MaxStale time.Duration
	// Metadata is added to the node of each stream to a member.
	Metadata map[string]string
	Logger   hclog.Logger
}

// Relay is safe for concurrent use. Its zero value cannot be used.
type Relay struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // that of the streams to members, which outlive each program
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu     sync.Mutex
	groups map[string]*group
}

const (
	// maxGroups bounds the streams to members.
	maxGroups = 1024
	// linger is how long an identity's stream and a resource stay without a program that uses them: one that restarts
	// during an outage is served then.
	linger = 10 * time.Minute
	sweep  = time.Minute
)

// New returns a relay, which [Relay.Close] ends.
func New(cfg Config) *Relay {
	if cfg.MaxStale == 0 {
		cfg.MaxStale = DefaultMaxStale
	}
	r := &Relay{cfg: cfg, groups: map[string]*group{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.tasks.Go(r.sweep)
	return r
}

// Close ends the streams to members, and waits for them. Subscribers end before.
func (r *Relay) Close() {
	r.cancel()
	r.tasks.Wait()
}

// Dial returns a connection with the credentials of an identity, and what closes it.
type Dial func() (conn grpc.ClientConnInterface, done func(), err error)

// Subscribe returns the source of one program's stream. identity names whose rights it has, and dial connects with
// them; it is called if no other program has the same identity and is of the same kind, by its node.
func (r *Relay) Subscribe(identity string, node *core.Node, dial Dial) (discovery.Source, error) {
	node = r.reduced(node)
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(node)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "encode the node: %v", err)
	}
	key := identity + "\x00" + string(raw)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.ctx.Err(); err != nil {
		return nil, status.Error(codes.Unavailable, "the relay stops")
	}
	g := r.groups[key]
	if g == nil {
		if len(r.groups) >= maxGroups {
			return nil, status.Errorf(codes.ResourceExhausted, "there are %d kinds of xDS clients on this node, which "+
				"is the limit", maxGroups)
		}
		conn, done, err := dial()
		if err != nil {
			return nil, err
		}
		g = newGroup(r.cfg, identity, node)
		ctx, cancel := context.WithCancel(r.ctx)
		g.end = cancel
		r.groups[key] = g
		r.tasks.Go(func() {
			defer done()
			defer r.forget(key, g)
			g.run(ctx, conn)
		})
	}
	g.use(1)
	return &subscriber{group: g, subscriptions: map[typed]bool{}}, nil
}

// forget removes a group whose stream has ended for good.
func (r *Relay) forget(key string, g *group) {
	g.end()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.groups[key] == g {
		delete(r.groups, key)
	}
}

// sweep ends groups and subscriptions that no program uses, but none during an outage.
func (r *Relay) sweep() {
	tick := time.NewTicker(sweep)
	defer tick.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case now := <-tick.C:
			r.mu.Lock()
			for key, g := range r.groups {
				if g.sweep(now) {
					g.end()
					delete(r.groups, key)
				}
			}
			r.mu.Unlock()
		}
	}
}

// reduced returns what a member has to know of a node. Programs of which that is equal share a stream.
func (r *Relay) reduced(node *core.Node) *core.Node {
	out := &core.Node{
		Id: "entente", Cluster: node.GetCluster(), Locality: node.GetLocality(),
		Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{}},
	}
	if slices.Contains(node.GetClientFeatures(), xdsupdate.NoOverprovisioning) {
		out.ClientFeatures = []string{xdsupdate.NoOverprovisioning}
		out.UserAgentName = node.GetUserAgentName()
	}
	for _, key := range []string{xdsupdate.RootsKey, xdsupdate.OutboundKey} {
		if value, ok := node.GetMetadata().GetFields()[key]; ok {
			out.Metadata.Fields[key] = value
		}
	}
	for key, value := range r.cfg.Metadata {
		out.Metadata.Fields[key] = structpb.NewStringValue(value)
	}
	return out
}

// refused returns the error of a stream if a member has decided, so that a program has to be told: its identity has no
// rights, or its node is malformed.
func refused(err error) error {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		return status.Error(status.Code(err), firstLine(err))
	}
	return nil
}

func firstLine(err error) string {
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	line, _, _ := strings.Cut(text, "\n")
	return line
}

var errEnded = errors.New("the member ended the stream")
