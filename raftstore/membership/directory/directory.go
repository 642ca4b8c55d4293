// Package directory answers which identity keys belong to the present members of the cluster.
//
// It reads this member's own Raft configuration. A member that was away while the membership changed does not recognize
// the new ones: then it fetches the membership from another member that it does recognize, and keeps that in memory
// until its own configuration is as new.
//
// It also answers where the members are: the address of the Raft configuration is that with which a member has joined,
// and what the member has stated later counts before that (statements.go).
package directory

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// Entry is a member in the directory.
type Entry struct {
	ID      string
	Address string
	// Start is the number of the start in which the member has stated its address; 0: it has the one that it joined
	// with.
	Start    uint64
	Identity memberid.Digest
}

// Configuration is this member's own Raft configuration.
type Configuration interface {
	List() []raftstore.Server
	Index() raftstore.Revision
}

// Conns gives the connections to other members under entente-member/1. They are shared, and the directory does not
// close them.
type Conns interface {
	Conn(memberID string) (grpc.ClientConnInterface, error)
}

// Directory answers who the present members are. It is created before the store is opened, because the port that Raft
// needs uses it; until [Directory.Attach] it has only what it learned. It never blocks and is safe for concurrent use.
type Directory struct {
	self   string
	logger hclog.Logger
	// unknown has a value after an identity was looked up that is not in the directory.
	unknown chan struct{}

	mu            sync.Mutex
	configuration Configuration
	learned       roster
	changed       func()
	// stated holds the newest statements on addresses, and recorded what is committed of them.
	stated   map[memberid.Digest]statement
	recorded map[memberid.Digest]Entry

	// news has a value after a statement was accepted.
	news chan struct{}
}

// roster is the membership at one Raft index.
type roster struct {
	index   raftstore.Revision
	members []Entry
}

// New returns the directory of the member with this ID. If logger is nil, nothing is logged.
func New(self string, logger hclog.Logger) *Directory {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Directory{
		self: self, logger: logger, unknown: make(chan struct{}, 1), news: make(chan struct{}, 1),
		stated: map[memberid.Digest]statement{},
	}
}

// Attach lets the directory read this member's own configuration, which counts as soon as it is as new as what was
// learned.
func (d *Directory) Attach(own Configuration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.configuration = own
}

// OnLearned sets a function that is called after the directory has learned a newer membership from another member, or
// has accepted a statement on an address. It is called from any goroutine.
func (d *Directory) OnLearned(changed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = changed
}

// MemberByIdentity returns the ID of the present member with this identity key. If there is none, [Directory.Run]
// fetches a newer membership.
func (d *Directory) MemberByIdentity(identity memberid.Digest) (string, bool) {
	for _, m := range d.present().members {
		if m.Identity == identity {
			return m.ID, true
		}
	}
	select {
	case d.unknown <- struct{}{}:
	default: // it is signalled already
	}
	return "", false
}

// Locate returns the address of a present member, and its identity.
func (d *Directory) Locate(id string) (address string, identity memberid.Digest, known bool) {
	for _, m := range d.present().members {
		if m.ID == id {
			return d.located(m).Address, m.Identity, true
		}
	}
	return "", memberid.Digest{}, false
}

// Members returns the present members, this one included, and the Raft index of that configuration. Their addresses are
// those of the configuration.
func (d *Directory) Members() ([]Entry, raftstore.Revision) {
	r := d.present()
	return slices.Clone(r.members), r.index
}

// Identities is [Directory.Members] as members send it to each other.
func (d *Directory) Identities() ([]*ententev1.MemberIdentity, raftstore.Revision) {
	r := d.present()
	var members []*ententev1.MemberIdentity
	for _, m := range r.members {
		m = d.located(m)
		members = append(members, &ententev1.MemberIdentity{
			Id: m.ID, Address: m.Address, Identity: m.Identity[:], AddressStart: m.Start,
		})
	}
	return members, r.index
}

// present returns the newer of this member's own configuration and the membership that it learned.
func (d *Directory) present() roster {
	d.mu.Lock()
	configuration, learned := d.configuration, d.learned
	d.mu.Unlock()
	if configuration == nil {
		return learned
	}
	own := rosterOf(configuration)
	if own.index >= learned.index {
		return own
	}
	return learned
}

func rosterOf(c Configuration) roster {
	for {
		index := c.Index()
		servers := c.List()
		if c.Index() != index {
			continue // it changed in between; index and servers must belong together
		}
		r := roster{index: index}
		for _, s := range servers {
			r.members = append(r.members, Entry{ID: s.MemberID, Address: s.Address, Identity: s.Identity})
		}
		return r
	}
}

// Learn adopts a membership that another member reported, if it is newer than the one that this member has.
func (d *Directory) Learn(index raftstore.Revision, members []*ententev1.MemberIdentity) (bool, error) {
	entries, err := Parse(members)
	if err != nil {
		return false, err
	}
	present := d.present()
	if index < present.index || index == present.index && slices.Equal(entries, sorted(present.members)) {
		return false, nil
	}
	d.mu.Lock()
	if index < d.learned.index {
		d.mu.Unlock()
		return false, nil
	}
	d.learned = roster{index: index, members: entries}
	changed := d.changed
	d.mu.Unlock()
	if !slices.ContainsFunc(entries, func(m Entry) bool { return m.ID == d.self }) {
		d.logger.Error("another member reports that this member is no longer in the cluster; "+
			"to return, empty its data folder and join it with a new token", "member", d.self, "configuration", index)
	}
	if changed != nil {
		changed()
	}
	return true, nil
}

// MaxMembers bounds a membership; Raft groups of more than nine members make no sense.
const MaxMembers = 64

// Parse checks a membership that another member sent.
func Parse(members []*ententev1.MemberIdentity) ([]Entry, error) {
	if len(members) == 0 || len(members) > MaxMembers {
		return nil, fmt.Errorf("a membership of %d members; 1 to %d are possible", len(members), MaxMembers)
	}
	entries := make([]Entry, 0, len(members))
	for _, m := range members {
		if err := memberid.CheckID(m.GetId()); err != nil {
			return nil, err
		}
		if len(m.GetIdentity()) != len(memberid.Digest{}) {
			return nil, fmt.Errorf("member %s: the digest of its identity key has %d bytes, not %d",
				m.GetId(), len(m.GetIdentity()), len(memberid.Digest{}))
		}
		entries = append(
			entries,
			Entry{
				ID: m.GetId(), Address: m.GetAddress(), Start: m.GetAddressStart(),
				Identity: memberid.Digest(m.GetIdentity()),
			},
		)
	}
	entries = sorted(entries)
	for i := 1; i < len(entries); i++ {
		if entries[i].ID == entries[i-1].ID {
			return nil, fmt.Errorf("member %s occurs twice", entries[i].ID)
		}
	}
	return entries, nil
}

func sorted(entries []Entry) []Entry {
	return slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return strings.Compare(a.ID, b.ID) })
}

const (
	// fetchEvery bounds how often unknown callers can make this member fetch the membership.
	fetchEvery   = time.Second
	fetchTimeout = 2 * time.Second
)

// Run fetches a newer membership from other members after an unknown identity was looked up, until ctx ends.
func (d *Directory) Run(ctx context.Context, conns Conns) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.unknown:
			d.fetch(ctx, conns)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fetchEvery):
		}
	}
}

// fetch requests the membership from one member after the other until one has a newer one.
func (d *Directory) fetch(ctx context.Context, conns Conns) {
	members, index := d.Members()
	for _, m := range members {
		if m.ID == d.self {
			continue
		}
		learned, err := d.fetchFrom(ctx, conns, m.ID)
		if err != nil {
			d.logger.Debug("could not fetch the membership", "member", m.ID, "error", err)
			continue
		}
		if learned {
			_, now := d.Members()
			d.logger.Info("fetched a newer membership", "member", m.ID, "configuration", now, "before", index)
			return
		}
	}
}

func (d *Directory) fetchFrom(ctx context.Context, conns Conns, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	conn, err := conns.Conn(id)
	if err != nil {
		return false, err
	}
	answer, err := ententev1.NewMemberServiceClient(conn).GetMembership(ctx, &ententev1.GetMembershipRequest{})
	if err != nil {
		return false, err
	}
	return d.Learn(raftstore.Revision(answer.GetRevision()), answer.GetMembers())
}
