package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/status"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/audit"
	"github.com/ententehq/entente/access/grant"
	"github.com/ententehq/entente/access/record"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/node/backup"
	"github.com/ententehq/entente/node/datadir"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/node/preflight"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/join"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/registration"
)

// openStore opens the replicated store. It resumes with the state in the data folder. If that is damaged, and the
// cluster has ordered the repair of this member, its log and its snapshots are deleted first.
func openStore(m *member) error {
	config := raftstore.Config{
		MemberID: m.cfg.Member.ID, Identity: m.identity.Digest, Address: m.cfg.Member.Advertise,
		Dir: m.dir.File(datadir.Raft), Stream: m.port.Raft(m.cfg.Member.Advertise), Dial: m.port.Conn,
		Fatal: func(err error) {
			m.operations.Fail(err)
			m.life.Fail(fmt.Errorf("store: %w", err))
		},
		Logger: m.log.Named("store"), Registerer: m.registry,
		Timing: raftstore.Timing{
			Heartbeat: m.cfg.Raft.HeartbeatTimeout, Election: m.cfg.Raft.ElectionTimeout, Disk: m.cfg.Raft.DiskTimeout,
		},
	}
	if err := m.directory.LoadStatements(m.dir.File(datadir.Members)); err != nil {
		m.log.Warn("what the members have stated of their addresses could not be read; they state it again",
			"error", err)
	}
	store, err := raftstore.Open(config)
	if errors.Is(err, raftstore.ErrDamaged) && rebuild(m, config.Dir) {
		store, err = raftstore.Open(config)
	}
	if err != nil {
		return err
	}
	m.store = store
	m.directory.Attach(m.store.Servers())
	m.trust.Open(m.store)
	return nil
}

// rebuild deletes the files of a store if the cluster has ordered that, and reports whether it did.
func rebuild(m *member, dir string) bool {
	if err := m.directory.Load(m.dir.File(datadir.Members)); err != nil {
		m.log.Warn("the other members are not known, so that no order to repair this one can be fetched", "reason", err)
		return false
	}
	order, ordered, err := membership.FetchRepair(context.Background(), m.cfg.Member.ID, m.directory, m.port)
	if err != nil {
		m.log.Warn("no order to repair this member could be fetched", "reason", err)
		return false
	}
	if !ordered {
		return false
	}
	if err := raftstore.Rebuild(dir, order); err != nil {
		m.log.Error("the damaged files of this member could not be deleted", "error", err)
		return false
	}
	m.log.Warn("the log and the snapshots of this member were deleted by an order of the cluster; it is rebuilt from "+
		"the others", "folder", dir)
	return true
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
		Self: m.self(), Identity: m.identity, Dialer: joinDialer(), Addresses: m.joinAddresses(),
		ClusterName: m.cfg.Cluster.Name, HomeTrustDomain: m.cfg.Cluster.TrustDomain.Name(),
		DNSName: m.cfg.Cluster.DNSName,
		Caller:  port.MemberFrom, Audit: joinAudit{m.audit},
		Administrator: func(ctx context.Context) string { return access.CallerFrom(ctx).String() },
		OnChange:      m.membersChanged,
		OnRemove: []func(*raftstore.Tx, membership.Removal) error{func(tx *raftstore.Tx, r membership.Removal) error {
			return errors.Join(
				m.authority.RemoveMember(tx, r.MemberID, r.Compromised),
				m.federation.Agreements().RemoveMember(tx, r.MemberID, r.Compromised),
				grant.RemoveMember(tx, r.MemberID, r.Compromised, time.Now()),
				registration.RemoveMember(tx, r.MemberID, r.Compromised, time.Now()),
			)
		}},
		Report: m.reportRemoval, Undone: effects{m}.ofRestore,
		Logger: m.log.Named("membership"), Registerer: m.registry,
	})
	return err
}

// membersChanged is called after the membership, or where a member is, has changed.
func (m *member) membersChanged() {
	m.port.RecheckMembers()
	if m.registration != nil { // it is built after the membership
		m.registration.ServersChanged()
	}
	if err := m.directory.Save(m.dir.File(datadir.Members)); err != nil {
		m.log.Warn("the members of the cluster could not be saved", "error", err)
	}
}

// reportRemoval implements the Report of [membership.Config].
func (m *member) reportRemoval(
	r raftstore.Reader, removed membership.Removal, answer *ententev1.RemoveMemberResponse,
) (err error) {
	if answer.Remaining, err = m.authority.Remaining(r, removed.MemberID); err != nil || !removed.Compromised {
		return err
	}
	if answer.RevokedGrants, err = grant.RevokedWith(r, removed.MemberID); err != nil {
		return err
	}
	made, err := record.MadeOn(r, removed.MemberID)
	for _, c := range made {
		answer.Changes = append(answer.Changes, &ententev1.AdministrativeChange{
			Number: c.Number, Revision: uint64(c.Revision), Time: c.GetTime(), Member: c.GetMember(),
			Caller: c.GetCaller(), Action: c.GetAction(), Object: c.GetObject(),
		})
	}
	return err
}

// joinAudit implements [membership.Auditor]: it writes the lines on joiners to the audit log.
type joinAudit struct{ log audit.Recorder }

func (a joinAudit) event(j membership.Joiner) audit.Event {
	return audit.Event{
		Caller: fmt.Sprintf("joiner %x", j.Identity[:8]), Action: "join cluster", Object: j.MemberID, Durable: true,
		Detail: fmt.Sprintf("address %s, token %s", j.Address, j.TokenID),
	}
}

// AuditJoin implements [membership.Auditor].
func (a joinAudit) AuditJoin(j membership.Joiner, admit func() (membership.Admission, error)) error {
	return audit.Do(a.log, a.event(j), func(line *audit.Event) error {
		admission, err := admit()
		line.Revision = uint64(admission.Revision)
		switch {
		case err != nil:
			line.Detail += ": " + status.Convert(err).Message()
		case admission.Awaiting:
			line.Result = "awaiting approval"
		}
		return err
	})
}

// AuditRefusal implements [membership.Auditor]. The recorder logs and counts a line that it cannot write.
func (a joinAudit) AuditRefusal(j membership.Joiner, refusal error) {
	e := a.event(j)
	e.Result = status.Convert(refusal).Message()
	_ = a.log.Record(e)
}

// AuditRemoval implements [membership.Auditor].
func (a joinAudit) AuditRemoval(id, why string, remove func() (raftstore.Revision, error)) error {
	return audit.Do(a.log, audit.Event{
		Caller: "autopilot", Action: "remove dead member", Object: id, Detail: why, Durable: true,
	}, func(line *audit.Event) error {
		revision, err := remove()
		line.Revision = uint64(revision)
		return err
	})
}

// joinDialer connects to members of this cluster, or of one that this member joins.
func joinDialer() join.Dialer {
	return join.Dialer{Dial: port.DialJoin, Credentials: port.Credentials()}
}

// joinAddresses returns the addresses of members that the configuration file names.
func (m *member) joinAddresses() []string {
	if m.cfg.Join == nil {
		return nil
	}
	return m.cfg.Join.Addresses
}

// enterCluster forms a cluster, joins one, or does nothing if the member already belongs to one.
func enterCluster(ctx context.Context, m *member, bootstrap bool) error {
	switch {
	case m.store.HasState():
		if bootstrap || m.cfg.Join != nil {
			m.log.Info("this member belongs to a cluster already; --bootstrap and the join token have no effect")
		}
		return nil
	case bootstrap && m.cfg.Join != nil:
		return errors.New("--bootstrap forms a new cluster, and the join block joins an existing one; remove one of " +
			"them")
	case bootstrap:
		return m.store.Bootstrap()
	}
	token, err := preflight.JoinToken(m.cfg.Join)
	if err != nil {
		return err
	}
	_, err = join.Enter(ctx, join.Entry{
		Token: token, Addresses: m.cfg.Join.Addresses, Self: m.self(), Identity: m.identity,
		ClusterName: m.cfg.Cluster.Name, HomeTrustDomain: m.cfg.Cluster.TrustDomain.Name(),
		Directory: m.directory, Dialer: joinDialer(), Logger: m.log.Named("join"),
	})
	if err != nil {
		return fmt.Errorf("join cluster %s: %w", m.cfg.Cluster.Name, err)
	}
	return nil
}

// transferLeadership transfers leadership to another member before this one stops, which saves the cluster an election
// timeout.
func transferLeadership(m *member) error {
	if !m.store.IsLeader() || len(m.store.Servers().List()) < 2 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), graceful)
	defer cancel()
	if err := m.store.Servers().TransferLeadership(ctx, ""); err != nil {
		m.log.Warn("could not transfer leadership before stopping; the other members will elect a leader", "error", err)
	}
	return nil
}

// buildSnapshots makes the schedule by which the member saves snapshots, if the configuration has one.
func buildSnapshots(m *member) (err error) {
	c := m.cfg.Snapshots
	if c == nil {
		return nil
	}
	m.snapshots, err = backup.New(backup.Config{
		Save: m.store.Snapshots().Save, Dir: c.Dir, Every: c.Every, Keep: c.Keep, Recipients: c.Recipients,
		Cluster: m.cfg.Cluster.Name, Member: m.cfg.Member.ID, Logger: m.log.Named("snapshots"), Registerer: m.registry,
	})
	return err
}

// saveSnapshots saves snapshots until ctx ends.
func (m *member) saveSnapshots(ctx context.Context) error {
	if m.snapshots == nil {
		<-ctx.Done()
		return nil
	}
	return m.snapshots.Run(ctx)
}
