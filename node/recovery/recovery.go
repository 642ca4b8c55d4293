// Package recovery makes a cluster of one surviving member, after a majority of the disks was lost.
//
// It works on the data folder of a member that does not run. [Stopped.Report] shows what the member has,
// [Stopped.Answering] finds other members that still answer, and [Stopped.Recover] writes a Raft configuration of this
// member alone behind its log, together with the row by which the member completes the recovery when it is started.
package recovery

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	"github.com/ententehq/entente/authority"
	"github.com/ententehq/entente/node/config"
	"github.com/ententehq/entente/node/datadir"
	"github.com/ententehq/entente/node/port"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership"
	"github.com/ententehq/entente/raftstore/membership/directory"
	"github.com/ententehq/entente/raftstore/membership/memberid"
	"github.com/ententehq/entente/raftstore/membership/recovery"
)

// Member is another member of the cluster.
type Member struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	identity memberid.Digest
}

// Report describes what a stopped member has.
type Report struct {
	Cluster   string `json:"cluster"`
	ClusterID string `json:"cluster_id"`
	Member    string `json:"member"`
	// LastIndex is the index of the last entry in its log, and LastEntry when a leader wrote that.
	LastIndex uint64    `json:"last_index"`
	LastEntry time.Time `json:"last_entry,omitzero"`
	// LastContact is the last contact with a leader that it has recorded.
	LastContact time.Time `json:"last_contact,omitzero"`
	// HighestSequence is the highest one of its hosted bundles. SeenSequence is the highest one that a peer, SeenBy,
	// has reported to have, if it was above that of the member.
	HighestSequence uint64 `json:"highest_sequence"`
	SeenSequence    uint64 `json:"seen_sequence,omitempty"`
	SeenBy          string `json:"seen_by,omitempty"`
	// Others are the members that a recovery strikes out.
	Others []Member `json:"others"`
}

// Result describes a recovery.
type Result struct {
	Report
	// Index is that of the entry with which the recovery begins, and SequenceFloor what the sequences of hosted bundles
	// continue from.
	Index         uint64 `json:"index"`
	SequenceFloor uint64 `json:"sequence_floor"`
}

// Stopped is the data folder of a member that does not run. While it is open, the member does not start.
type Stopped struct {
	cfg    *config.Config
	dir    *datadir.Folder
	store  *raftstore.Stopped
	report Report
	// addresses are those at which other members may be.
	addresses []string
	identity  memberid.Digest
}

// Open opens the data folder that a configuration names, and reads everything that the member has.
func Open(cfg *config.Config) (*Stopped, error) {
	if _, err := os.Stat(filepath.Join(cfg.Member.DataDir, datadir.Identity)); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is not the data folder of a member: it has no %s; name the file of the member that "+
			"has survived", cfg.Member.DataDir, datadir.Identity)
	}
	dir, err := datadir.Open(cfg.Member.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Stopped{cfg: cfg, dir: dir}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Stopped) open() error {
	identity, err := s.dir.LoadIdentity()
	if err != nil {
		return err
	}
	s.identity = identity.Digest
	id := s.cfg.Member.ID
	s.store, err = raftstore.OpenStopped(raftstore.Config{
		MemberID: id, Identity: identity.Digest, Address: s.cfg.Member.Advertise, Dir: s.dir.File(datadir.Raft),
	})
	switch {
	case errors.Is(err, raftstore.ErrDamaged):
		return fmt.Errorf("%w; recover from another surviving member, or restore a snapshot into a new cluster", err)
	case err != nil:
		return err
	case !s.store.Member():
		return fmt.Errorf("the log in %s does not have this member, %s with identity key %s, in the cluster: it was "+
			"removed, or member.id is another one", s.cfg.Member.DataDir, id, memberid.Short(identity.Digest))
	}
	return s.describe()
}

// describe fills in the report and the addresses.
func (s *Stopped) describe() error {
	last, err := s.store.LastIndex()
	if err != nil {
		return err
	}
	v := s.store.View()
	s.report = Report{
		Cluster: s.cfg.Cluster.Name, ClusterID: v.ClusterID(), Member: s.cfg.Member.ID, LastIndex: uint64(last),
		LastEntry: s.store.Written(), LastContact: s.store.Contact(), Others: []Member{},
	}
	if s.report.HighestSequence, err = authority.HighestSequence(v); err != nil {
		return err
	}
	seen, err := readSeen(s.dir.File(datadir.Seen))
	if err != nil {
		return fmt.Errorf("%w; remove the file, and give --sequence-floor with a number above every sequence that a "+
			"peer has seen (`entente federation show DOMAIN` there)", err)
	}
	if len(seen) > 0 {
		s.report.SeenSequence, s.report.SeenBy = seen[0].GetSequence(), seen[0].GetPeer()
	}
	others, err := s.store.Others()
	if err != nil {
		return err
	}
	rows, err := membership.Members.List(v, "")
	if err != nil {
		return err
	}
	for _, o := range others {
		s.report.Others = append(s.report.Others, Member{ID: o.MemberID, Address: o.Address, identity: o.Identity})
		s.addresses = append(s.addresses, o.Address)
	}
	for _, row := range rows { // also those of a recovery that was not completed
		known := func(m Member) bool { return string(m.identity[:]) == string(row.Value.GetIdentity()) }
		s.addresses = append(s.addresses, row.Value.GetAddress())
		if row.Key != s.cfg.Member.ID && !slices.ContainsFunc(s.report.Others, known) &&
			len(row.Value.GetIdentity()) == len(memberid.Digest{}) {
			s.report.Others = append(s.report.Others, Member{
				ID: row.Key, Address: row.Value.GetAddress(), identity: memberid.Digest(row.Value.GetIdentity()),
			})
		}
	}
	if s.cfg.Join != nil {
		s.addresses = append(s.addresses, s.cfg.Join.Addresses...)
	}
	stated, err := directory.StatedAddresses(s.dir.File(datadir.Members))
	if err != nil {
		return err
	}
	s.addresses = append(s.addresses, stated...)
	slices.Sort(s.addresses)
	s.addresses = slices.DeleteFunc(slices.Compact(s.addresses), func(a string) bool {
		return a == "" || a == s.cfg.Member.Advertise
	})
	return nil
}

// Report returns what the member has.
func (s *Stopped) Report() Report { return s.report }

// Floor returns what the sequences of hosted bundles continue from; see the function of that name.
func (s *Stopped) Floor(given uint64, now time.Time) (uint64, error) {
	return Floor(Sequences{OnDisk: s.report.HighestSequence, Seen: s.report.SeenSequence, Peer: s.report.SeenBy}, given,
		now, s.report.LastContact, s.report.LastEntry)
}

// Answering returns an error if a member answers at one of the addresses that this one knows: the cluster may live
// there, and would be two after a recovery. What answers there with an identity key that is not known here may be a
// later member.
func (s *Stopped) Answering(ctx context.Context) error {
	var tries sync.WaitGroup
	answers := make([]error, len(s.addresses))
	for i, address := range s.addresses {
		tries.Go(func() { answers[i] = s.answers(ctx, address) })
	}
	tries.Wait()
	return errors.Join(answers...)
}

func (s *Stopped) answers(ctx context.Context, address string) error {
	var found string
	conn, err := port.DialJoin(ctx, address, func(presented port.Identity) error {
		found = "a member with identity key " + memberid.Short(presented) + ", which is not known here,"
		for _, m := range s.report.Others {
			if m.identity == presented {
				found = "member " + m.ID
			}
		}
		if presented == s.identity {
			found = "a member with a copy of this data folder"
		}
		return nil
	})
	if err == nil {
		err = conn.Close() // nothing was sent
	}
	if found == "" {
		return nil
	}
	return errors.Join(fmt.Errorf("%s answers at %s: start this member, and the others that have their data folders, "+
		"and wait for a leader. A recovery beside a living member makes two clusters of one; stop it for good if its "+
		"disk is lost to you", found, address), err)
}

// Recover makes a cluster of this member alone, out of all that it has. floor is what the sequences of hosted bundles
// continue from: see [Floor].
func (s *Stopped) Recover(floor uint64, now time.Time) (Result, error) {
	row := &statev1.Recovery{
		Time: timestamppb.New(now), MemberId: s.cfg.Member.ID, LastIndex: s.report.LastIndex, SequenceFloor: floor,
	}
	for _, m := range s.report.Others {
		row.Abandoned = append(row.Abandoned, &statev1.AbandonedMember{Id: m.ID, Identity: m.identity[:]})
	}
	index, err := s.store.Recover(func(tx *raftstore.Tx) error { return recovery.Begin(tx, row) })
	if err != nil {
		return Result{}, fmt.Errorf("recover cluster %s: %w", s.cfg.Cluster.Name, err)
	}
	return Result{Report: s.report, Index: uint64(index), SequenceFloor: floor}, nil
}

// Close closes the files and releases the data folder.
func (s *Stopped) Close() error {
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	return errors.Join(err, s.dir.Close())
}

// Names returns the IDs of members, for people.
func Names(members []Member) string {
	names := make([]string, len(members))
	for i, m := range members {
		names[i] = m.ID
	}
	return strings.Join(names, ", ")
}
