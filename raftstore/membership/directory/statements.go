package directory

import (
	"errors"
	"fmt"
	"slices"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore/membership/memberid"
)

// A member whose address has changed states the new one, signed with its identity key and with the number of its start.
// Of what is known of a member's address, that of the latest start counts: what it has stated, which is kept in memory
// and in the file of the members, or what the leader has committed to its row, after it has verified the address.
//
// The Raft configuration keeps the address with which a member has joined. To change it there is of no use, since every
// connection is made by the directory, and Raft reads the address of a server without its lock while it writes it.

// statement is the newest statement of the holder of an identity key.
type statement struct {
	*ententev1.AddressStatement
	identity memberid.Digest
}

// The reasons why [Directory.Accept] refuses a statement.
var (
	// ErrUnknownMember means that the identity key is not that of the member, or that there is no such member.
	ErrUnknownMember = errors.New("it is not signed with the identity key of a present member of that name")
	// ErrOutdated means that a newer statement of the member is known.
	ErrOutdated = errors.New("a newer statement of the member is known")
)

// Accept verifies a statement of a member on its address, and reports whether it is newer than what this member had.
func (d *Directory) Accept(s *ententev1.AddressStatement) (news bool, err error) {
	identity, err := memberid.VerifyAddress(s)
	if err != nil {
		return false, err
	}
	present := d.present()
	if !slices.ContainsFunc(present.members, func(m Entry) bool {
		return m.ID == s.GetMemberId() && m.Identity == identity
	}) {
		return false, fmt.Errorf("address statement of member %s: %w", s.GetMemberId(), ErrUnknownMember)
	}
	d.mu.Lock()
	news, err = newer(d.stated[identity].AddressStatement, d.recorded[identity].Start, s)
	changed := d.changed
	if news {
		d.stated[identity] = statement{s, identity}
	}
	d.mu.Unlock()
	if !news {
		return false, err
	}
	select {
	case d.news <- struct{}{}:
	default: // it is signalled already
	}
	if changed != nil {
		changed()
	}
	return true, nil
}

// newer decides whether a statement takes the place of the one that is known of the same member. recorded is the start
// whose address is committed.
func newer(known *ententev1.AddressStatement, recorded uint64, s *ententev1.AddressStatement) (bool, error) {
	switch latest := max(known.GetStart(), recorded); {
	case s.GetStart() < latest:
		return false, fmt.Errorf("address statement of member %s: it is of start %d of it, and start %d is known: %w",
			s.GetMemberId(), s.GetStart(), latest, ErrOutdated)
	case s.GetStart() > known.GetStart():
		return true, nil
	case s.GetAddress() != known.GetAddress():
		return false, fmt.Errorf("address statement of member %s: it has stated %s in the same start: %w",
			s.GetMemberId(), known.GetAddress(), ErrOutdated)
	}
	return false, nil
}

// News delivers a value after a statement was accepted.
func (d *Directory) News() <-chan struct{} { return d.news }

// Statements returns the statements of present members that count, without that of this member.
func (d *Directory) Statements() []*ententev1.AddressStatement {
	var all []*ententev1.AddressStatement
	present := d.present()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range sorted(present.members) {
		s, ok := d.stated[m.Identity]
		if ok && m.ID != d.self && s.GetMemberId() == m.ID && s.GetStart() >= d.recorded[m.Identity].Start {
			all = append(all, s.AddressStatement)
		}
	}
	return all
}

// SetRecorded sets what is committed of the addresses that members have stated.
func (d *Directory) SetRecorded(rows []Entry) {
	recorded := make(map[memberid.Digest]Entry, len(rows))
	for _, row := range rows {
		recorded[row.Identity] = row
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recorded = recorded
}

// Moved returns the members that have stated an address which is not committed, this one included.
func (d *Directory) Moved() (moves []Entry) {
	present := d.present()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range sorted(present.members) {
		committed := latest(m, d.recorded[m.Identity], Entry{})
		if to := latest(committed, Entry{}, d.statedBy(m)); to.Address != committed.Address {
			moves = append(moves, to)
		}
	}
	return moves
}

// located returns a present member with its latest address.
func (d *Directory) located(m Entry) Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	return latest(m, d.recorded[m.Identity], d.statedBy(m))
}

// statedBy returns what a member has stated of its address. d.mu is held.
func (d *Directory) statedBy(m Entry) Entry {
	s := d.stated[m.Identity]
	if s.GetMemberId() != m.ID {
		return Entry{}
	}
	return Entry{Address: s.GetAddress(), Start: s.GetStart()}
}

// latest returns a member with the address of its latest start.
func latest(m, recorded, stated Entry) Entry {
	for _, e := range []Entry{recorded, stated} {
		if e.Start > m.Start {
			m.Address, m.Start = e.Address, e.Start
		}
	}
	return m
}
