package node

import (
	"context"
	"crypto/tls"
	"fmt"

	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/feed"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/trust"
)

// openPort listens on the TLS port. The port accepts connections once it runs.
func openPort(m *member) error {
	listener, err := listen("members and clients", "member.listen", m.cfg.Member.Listen)
	if err != nil {
		return err
	}
	m.directory = directory.New(m.cfg.Member.ID, m.log.Named("membership"))
	m.trust = trust.NewIndex(trustSources())
	m.port, err = port.New(port.Config{
		Listener: listener, Self: m.cfg.Member.ID, Identity: m.identity.Certificate,
		Members: m.directory, Certificates: serverCertificates{m}, Trust: m.trust,
		Logger: m.log.Named("port"), Registerer: m.registry,
	})
	if err != nil {
		return fmt.Errorf("open the port: %w", err)
	}
	m.directory.OnLearned(m.port.RecheckMembers)
	return nil
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
			return nil
		})
	}
}
