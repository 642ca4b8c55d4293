package membership

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
)

// Fellow is a member as the directory knows it.
type Fellow struct {
	ID       string
	Address  string
	Identity Digest
}

// Configuration is where a directory finds this member's own Raft configuration.
type Configuration interface {
	List() []raftstore.Server
	Index() raftstore.Revision
}

// Directory answers who the present members are. It is made before the store is opened, because the port
// that Raft needs asks it; until [Directory.Attach] it knows only what it was taught. It never blocks and
// is safe for concurrent use.
type Directory struct {
	self   string
	logger hclog.Logger
	// stranger has a place for one note that an unknown identity knocked.
	stranger chan struct{}

	mu      sync.Mutex
	store   Configuration
	learned roster
	changed func()
}

// roster is the membership at one Raft index.
type roster struct {
	index   raftstore.Revision
	fellows []Fellow
}

// NewDirectory makes the directory of the member with this id.
func NewDirectory(self string, logger hclog.Logger) *Directory {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Directory{self: self, logger: logger, stranger: make(chan struct{}, 1)}
}

// Attach lets the directory read this member's own configuration, which counts as soon as it is as new as
// what was learned.
func (d *Directory) Attach(store Configuration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store = store
}

// OnLearned sets what is called after the directory has learned a newer membership from a fellow.
func (d *Directory) OnLearned(changed func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changed = changed
}

// MemberByIdentity returns the id of the present member with this identity key. If there is none, a fellow
// is asked for a newer membership meanwhile, while [Directory.Run] runs.
func (d *Directory) MemberByIdentity(identity Digest) (string, bool) {
	for _, f := range d.present().fellows {
		if f.Identity == identity {
			return f.ID, true
		}
	}
	select {
	case d.stranger <- struct{}{}:
	default: // a note is there already
	}
	return "", false
}

// Locate returns where a present member is, and its identity.
func (d *Directory) Locate(id string) (address string, identity Digest, known bool) {
	for _, f := range d.present().fellows {
		if f.ID == id {
			return f.Address, f.Identity, true
		}
	}
	return "", Digest{}, false
}

// Fellows returns the present members, this one among them, and the Raft index at which they are so.
func (d *Directory) Fellows() ([]Fellow, raftstore.Revision) {
	r := d.present()
	return slices.Clone(r.fellows), r.index
}

// present is the newer of this member's own configuration and what it learned.
func (d *Directory) present() roster {
	d.mu.Lock()
	store, learned := d.store, d.learned
	d.mu.Unlock()
	if store == nil {
		return learned
	}
	own := rosterOf(store)
	if own.index >= learned.index {
		return own
	}
	return learned
}

func rosterOf(store Configuration) roster {
	for {
		index := store.Index()
		servers := store.List()
		if store.Index() != index {
			continue // it changed in between; index and servers must belong together
		}
		r := roster{index: index}
		for _, s := range servers {
			r.fellows = append(r.fellows, Fellow{ID: s.MemberID, Address: s.Address, Identity: s.Identity})
		}
		return r
	}
}

// Learn takes over a membership that a fellow reported, if it is newer than what this member knows.
func (d *Directory) Learn(index raftstore.Revision, members []*ententev1.MemberIdentity) (bool, error) {
	fellows, err := fellowsOf(members)
	if err != nil {
		return false, err
	}
	if present := d.present(); index < present.index || index == present.index && slices.Equal(fellows, sorted(present.fellows)) {
		return false, nil
	}
	d.mu.Lock()
	if index < d.learned.index {
		d.mu.Unlock()
		return false, nil
	}
	d.learned = roster{index: index, fellows: fellows}
	changed := d.changed
	d.mu.Unlock()
	if !slices.ContainsFunc(fellows, func(f Fellow) bool { return f.ID == d.self }) {
		d.logger.Error("a fellow member reports that this member is no longer in the cluster; if it is to come back, empty its data folder and join it with a new token",
			"member", d.self, "configuration", index)
	}
	if changed != nil {
		changed()
	}
	return true, nil
}

// maxFellows bounds a membership; Raft groups of more than nine members make no sense.
const maxFellows = maxTokenMembers

func fellowsOf(members []*ententev1.MemberIdentity) ([]Fellow, error) {
	if len(members) == 0 || len(members) > maxFellows {
		return nil, fmt.Errorf("a membership of %d members; 1 to %d are possible", len(members), maxFellows)
	}
	fellows := make([]Fellow, 0, len(members))
	for _, m := range members {
		if err := CheckID(m.GetId()); err != nil {
			return nil, err
		}
		if len(m.GetIdentity()) != len(Digest{}) {
			return nil, fmt.Errorf("member %s: the digest of its identity key has %d bytes, not %d", m.GetId(), len(m.GetIdentity()), len(Digest{}))
		}
		fellows = append(fellows, Fellow{ID: m.GetId(), Address: m.GetAddress(), Identity: Digest(m.GetIdentity())})
	}
	fellows = sorted(fellows)
	for i := 1; i < len(fellows); i++ {
		if fellows[i].ID == fellows[i-1].ID {
			return nil, fmt.Errorf("member %s occurs twice", fellows[i].ID)
		}
	}
	return fellows, nil
}

func sorted(fellows []Fellow) []Fellow {
	return slices.SortedFunc(slices.Values(fellows), func(a, b Fellow) int { return strings.Compare(a.ID, b.ID) })
}

// identities is the form in which members tell each other of the membership.
func (d *Directory) identities() ([]*ententev1.MemberIdentity, raftstore.Revision) {
	r := d.present()
	var members []*ententev1.MemberIdentity
	for _, f := range r.fellows {
		members = append(members, &ententev1.MemberIdentity{Id: f.ID, Address: f.Address, Identity: f.Identity[:]})
	}
	return members, r.index
}

const (
	// askEvery bounds how often strangers can make this member ask its fellows.
	askEvery   = time.Second
	askTimeout = 2 * time.Second
)

// Run asks fellow members for a newer membership after an unknown identity knocked, until ctx ends.
func (d *Directory) Run(ctx context.Context, conns Conns) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.stranger:
			d.ask(ctx, conns)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(askEvery):
		}
	}
}

// ask asks one fellow after the other until one knows a newer membership.
func (d *Directory) ask(ctx context.Context, conns Conns) {
	fellows, index := d.Fellows()
	for _, f := range fellows {
		if f.ID == d.self {
			continue
		}
		learned, err := d.askOne(ctx, conns, f.ID)
		if err != nil {
			d.logger.Debug("a fellow member could not be asked for the membership", "fellow", f.ID, "error", err)
			continue
		}
		if learned {
			_, now := d.Fellows()
			d.logger.Info("learned a newer membership from a fellow member", "fellow", f.ID, "configuration", now, "before", index)
			return
		}
	}
}

func (d *Directory) askOne(ctx context.Context, conns Conns, id string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
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
