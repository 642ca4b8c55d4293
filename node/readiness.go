package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/ententehq/entente/bundle/svid"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/operations"
)

// readiness returns the conditions under which /ready answers 200: callers can read from this member. An election, or
// the loss of the majority, changes nothing about that.
func readiness(m *member) []operations.Check {
	checks := []operations.Check{
		{Name: "state", Test: m.store.Serving().Err},
		{Name: "svid", Test: func() error { return usableSVID(m.authority.MemberSVID, m.trust, time.Now()) }},
		{Name: "bundle", Test: m.publisher.Ready},
	}
	if m.cfg.BundleEndpoint.Profile == config.ProfileSPIFFE {
		checks = append(checks, operations.Check{Name: "endpoint", Test: func() error {
			_, err := m.authority.EndpointSVID(m.cfg.Cluster.TrustDomain)
			return err
		}})
	}
	return checks
}

// readinessToWrite returns the conditions under which /ready/write answers 200: the member reaches a leader that can
// commit, it has a vote and is not far behind the leader, and its own disk keeps votes and the audit log. All are read
// from memory.
func readinessToWrite(m *member) []operations.Check {
	return []operations.Check{
		{Name: "leader", Test: func() error {
			if _, known := m.store.Leader(); !known {
				return errors.New("no leader is known: a majority of the members must be up and reach each other")
			}
			return m.members.CanCommit()
		}},
		{Name: "vote", Test: func() error {
			for _, server := range m.store.Servers().List() {
				if server.MemberID == m.cfg.Member.ID && server.Voter {
					return nil
				}
			}
			return errors.New("this member has no vote yet; the leader gives it one when it has caught up")
		}},
		{Name: "lag", Test: m.members.Behind},
		{Name: "disk", Test: m.store.Disk().Err},
		{Name: "audit", Test: m.audit.Err},
		{Name: "signing", Test: func() error {
			if err := m.authority.SVIDsRenewed(); err != nil {
				return err
			}
			return usableSVID(m.authority.MemberSVID, m.trust, time.Now())
		}},
	}
}

// status describes this member in one line, for a supervisor: what it waits for, or who leads and what it cannot do.
func (m *member) status() string {
	if !m.serving.Load() {
		return fmt.Sprintf("%s starts: %v", m.cfg.Member.ID, starting(m))
	}
	voters := 0
	for _, server := range m.store.Servers().List() {
		if server.Voter {
			voters++
		}
	}
	leader, known := m.store.Leader()
	lead := "no leader"
	if known {
		lead = "leader " + leader.MemberID
	}
	text := fmt.Sprintf("%s of cluster %s, %s, %d voters", m.cfg.Member.ID, m.cfg.Cluster.Name, lead, voters)
	for _, c := range readinessToWrite(m) {
		if err := c.Test(); err != nil {
			return fmt.Sprintf("%s: not ready to write: %s: %v", text, c.Name, err)
		}
	}
	return text + ": ready"
}

// showRemoval logs that this member was removed, and answers so at /ready until the process ends.
func (m *member) showRemoval(reason error) {
	m.removed = true
	m.log.Error("this member was removed from the cluster and stops", "reason", reason)
	if m.operations == nil {
		return // it has not come that far
	}
	checks := []operations.Check{{Name: "removed", Test: func() error { return reason }}}
	m.operations.SetReady(checks)
	m.operations.SetReadyToWrite(checks)
}

// noticeOfRemoval is how long a removed member answers at /ready after everything else has stopped: a period of the
// probes of most orchestrators.
const noticeOfRemoval = 10 * time.Second

// awaitNotice waits, if this member was removed, until whoever probes /ready can have seen that, or ctx ends. The store
// is closed first, which would stand for election.
func (m *member) awaitNotice(ctx context.Context) error {
	if !m.removed {
		return nil
	}
	err := m.store.Close()
	select {
	case <-ctx.Done():
	case <-time.After(noticeOfRemoval):
	}
	return err
}

// usableSVID returns why callers would refuse the SVID of this member, by the verifier that this member judges callers
// with, or nil.
func usableSVID(own func() (*tls.Certificate, error), bundles x509bundle.Source, now time.Time) error {
	held, err := own()
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for _, raw := range held.Certificate {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return fmt.Errorf("the SVID of this member does not parse: %w", err)
		}
		chain = append(chain, cert)
	}
	if _, err := svid.Verify(chain, bundles, now); err != nil {
		return fmt.Errorf("the SVID of this member is refused by those who verify it: %w", err)
	}
	return nil
}
