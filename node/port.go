package node

import (
	"context"
	"crypto/tls"
	"fmt"

	"google.golang.org/grpc"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/bundle/endpoint"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/registration"
	"github.com/ententehq/entente/trust"
)

// openPort listens on the TLS port. The port accepts connections once it runs.
func openPort(m *member) error {
	listener, err := listen("members and clients", "member.listen", m.cfg.Member.Listen)
	if err != nil {
		return err
	}
	m.refusals = make(refusals, maxRefusals)
	m.directory = directory.New(m.cfg.Member.ID, m.log.Named("membership"))
	m.trust = trust.NewIndex(trustSources())
	var dial []grpc.DialOption
	if m.traces != nil {
		dial = append(dial, m.traces.DialOption())
	}
	m.port, err = port.New(port.Config{
		Listener: listener, Self: m.cfg.Member.ID, Identity: m.identity.Certificate,
		Members: m.directory, Certificates: serverCertificates{m}, Trust: m.trust,
		Starting:   func() bool { return !m.serving.Load() },
		Privilege:  func(c access.Caller) port.Privilege { return privilegeOf(m.guard, c) },
		Refused:    m.refusals.add,
		MaxClients: min(maxClients, endpoint.OpenFiles()/2),
		Dial:       dial,
		Logger:     m.log.Named("port"), Registerer: m.registry,
	})
	if err != nil {
		return fmt.Errorf("open the port: %w", err)
	}
	m.directory.OnLearned(m.membersChanged)
	return nil
}

// maxClients is the limit of connections of callers with a grant. Each takes one of the files that the process can have
// open.
const maxClients = 16384

// privilegeOf returns what the access rules know of a caller before it calls anything.
func privilegeOf(guard *access.Guard, c access.Caller) port.Privilege {
	switch {
	case guard.HasGrant(c):
		return port.Granted
	case guard.IsPeerMember(c):
		return port.Peer
	}
	return port.Stranger
}

// refusals are samples of refused connections that wait for their lines in the audit log. The port does not wait for a
// disk.
type refusals chan port.Sample

// maxRefusals is far above what comes while the disk works: a sample for a reason every ten seconds.
const maxRefusals = 128

// add keeps a sample, or drops it if there is no room. The metric of the port counts all refusals.
func (r refusals) add(s port.Sample) {
	select {
	case r <- s:
	default:
	}
}

// record writes the samples until ctx ends.
func (r refusals) record(log *audit.Log) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case s := <-r:
				_ = log.Record(refusalEvent(s)) // it logs its own failure
			}
		}
	}
}

func refusalEvent(s port.Sample) audit.Event {
	detail := fmt.Sprintf("%s: %s", s.Reason, s.Detail)
	if s.Omitted > 0 {
		detail = fmt.Sprintf("%s; before it %d more without a line of their own", detail, s.Omitted)
	}
	return audit.Event{
		Caller: "unauthenticated at " + s.Remote.String(), Action: "connect", Object: string(s.Protocol),
		Result: audit.ResultDenied, Detail: detail,
	}
}

// serverCertificates gives the port the member's SVID. The authority, which issues it, is built after the port and
// before the first handshake.
type serverCertificates struct{ m *member }

// ServerCertificate implements [port.Certificates].
func (c serverCertificates) ServerCertificate() (*tls.Certificate, error) {
	return c.m.authority.MemberSVID()
}

// recheckCallers checks the callers of open connections again after each change of trust, and closes connections whose
// caller is no longer trusted.
func recheckCallers(m *member) func(context.Context) error {
	return func(ctx context.Context) error {
		return feed.Latest(ctx, m.store, m.trust.Over(), func(*raftstore.View) error {
			m.port.Recheck()
			m.port.Reclassify()
			return nil
		})
	}
}

// reclassifyCallers counts open connections towards other limits after each change of grants and of agents.
func reclassifyCallers(m *member) func(context.Context) error {
	return func(ctx context.Context) error {
		over := []raftstore.Prefix{grant.Prefix(), registration.AgentsPrefix()}
		return feed.Latest(ctx, m.store, over, func(*raftstore.View) error {
			m.port.Reclassify()
			return nil
		})
	}
}
