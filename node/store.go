package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// openStore opens the replicated store. It resumes with the state in the data folder.
func openStore(m *member) (err error) {
	m.store, err = raftstore.Open(raftstore.Config{
		MemberID: m.cfg.Member.ID, Identity: m.identity.Digest, Address: m.cfg.Member.Advertise,
		Dir: m.dir.file("raft"), Stream: m.port.Raft(m.cfg.Member.Advertise), Dial: m.port.Conn,
		Fatal: func(err error) {
			m.operations.Fail(err)
			m.life.Fail(fmt.Errorf("store: %w", err))
		},
		Logger: m.log.Named("store"), Registerer: m.registry,
		Timing: raftstore.Timing{
			Heartbeat: m.cfg.Raft.HeartbeatTimeout, Election: m.cfg.Raft.ElectionTimeout, Disk: m.cfg.Raft.DiskTimeout,
		},
	})
	if err != nil {
		return err
	}
	m.directory.Attach(m.store.Servers())
	m.trust.Open(m.store)
	return nil
}

// self describes this member to the others.
func (m *member) self() memberid.Self {
	return memberid.Self{
		ID: m.cfg.Member.ID, Region: m.cfg.Cluster.Region, Zone: m.cfg.Member.Zone,
		Address: m.cfg.Member.Advertise, Version: Version, Identity: m.identity.Digest,
	}
}

func buildMembership(m *member) (err error) {
	m.members, err = membership.New(membership.Config{
		Store: m.store, Directory: m.directory, Conns: m.port, Prober: m.port,
		Self:        m.self(),
		ClusterName: m.cfg.Cluster.Name, HomeTrustDomain: m.cfg.Cluster.TrustDomain.Name(),
		Caller: port.MemberFrom, Audit: joinAudit{m.audit},
		OnChange: m.port.RecheckMembers,
		OnRemove: []func(*raftstore.Tx, membership.Removal) error{func(tx *raftstore.Tx, r membership.Removal) error {
			return errors.Join(
				m.authority.RemoveMember(tx, r.MemberID, r.Compromised),
				m.federation.Agreements().RemoveMember(tx, r.MemberID, r.Compromised),
			)
		}},
		Logger: m.log.Named("membership"), Registerer: m.registry,
	})
	return err
}

// joinAudit records the membership's decisions on joiners in the audit log.
type joinAudit struct{ log *audit.Log }

// RecordJoin implements [membership.Auditor].
func (a joinAudit) RecordJoin(e membership.JoinEvent) error {
	result := e.Result
	if result == "" {
		result = audit.ResultBegun
	}
	return a.log.Record(audit.Event{
		Caller: fmt.Sprintf("joiner %x", e.Identity[:8]), Action: "join cluster", Object: e.MemberID,
		Result: result, Revision: uint64(e.Revision), Durable: true,
		Detail: fmt.Sprintf("address %s, token %s", e.Address, e.TokenID),
	})
}

// enterCluster forms a cluster, joins one, or does nothing if the member already belongs to one.
func enterCluster(ctx context.Context, m *member, bootstrap bool) error {
	switch {
	case m.store.HasState():
		if bootstrap || m.cfg.Join != nil {
			m.log.Info("this member belongs to a cluster already; --bootstrap and the join block have no effect")
		}
		return nil
	case bootstrap && m.cfg.Join != nil:
		return errors.New("--bootstrap forms a new cluster, and the join block joins an existing one; remove one of " +
			"them")
	case bootstrap:
		return m.store.Bootstrap()
	}
	text, err := m.cfg.Join.Token.Read()
	if err != nil {
		return fmt.Errorf("join.token: %w", err)
	}
	token, err := join.ParseToken(text)
	if err != nil {
		return fmt.Errorf("join.token: %w", err)
	}
	_, err = join.Enter(ctx, join.Entry{
		Token: token, Addresses: m.cfg.Join.Addresses, Self: m.self(), Identity: m.identity,
		ClusterName: m.cfg.Cluster.Name, HomeTrustDomain: m.cfg.Cluster.TrustDomain.Name(),
		Directory: m.directory, Dial: port.DialJoin, Credentials: port.Credentials(), Logger: m.log.Named("join"),
	})
	if err != nil {
		return fmt.Errorf("join cluster %s: %w", m.cfg.Cluster.Name, err)
	}
	return nil
}

// transferLead transfers the lead to another member before this one stops, which saves the cluster an election timeout.
func transferLead(m *member) error {
	if !m.store.IsLeader() || len(m.store.Servers().List()) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), graceful)
	defer cancel()
	if err := m.store.Servers().TransferLead(ctx, ""); err != nil {
		m.log.Warn("could not transfer the lead before stopping; the other members will elect a leader", "error", err)
	}
	return nil
}
