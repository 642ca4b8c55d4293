package registration

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/access"
	"github.com/ententehq/entente/access/grant"
	statev1 "github.com/ententehq/entente/api/entente/state/v1"
	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
	"github.com/ententehq/entente/registration/entry"
)

// entryService serves entente.v1.EntryService.
type entryService struct {
	ententev1.UnimplementedEntryServiceServer
	room *Room
}

// CreateEntry stores a new entry.
func (s *entryService) CreateEntry(ctx context.Context, m *ententev1.CreateEntryRequest) (*ententev1.Entry, error) {
	e, err := entry.Parse(m.GetEntry())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if earlier := repeat.Earlier(ctx); earlier != nil {
		return s.GetEntry(ctx, &ententev1.GetEntryRequest{Id: cmp.Or(e.ID, earlier.Name)})
	}
	if err := s.room.index.admits(access.Author(ctx)); err != nil {
		return nil, err
	}
	if e.ID == "" {
		e.ID = newID()
		repeat.Generated(ctx, e.ID)
	}
	row := &statev1.RegistrationEntry{CreateTime: timestamppb.New(s.room.cfg.Now()), CreatedBy: caller(ctx)}
	revision, err := s.room.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		if _, found, err := entries.Get(tx, e.ID); err != nil || found {
			return cmp.Or(err, status.Errorf(codes.AlreadyExists, "there is an entry %s: change it with 'entente "+
				"entry "+
				"update', or choose another ID", e.ID))
		}
		if err := s.room.fill(ctx, tx, e, row); err != nil {
			return err
		}
		return s.room.putEntry(tx, row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.room.shown(row, uint64(revision)), nil
}

// newID returns a random ID of an entry.
func newID() string {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// putEntry stores an entry, with a new generation.
func (r *Room) putEntry(tx *raftstore.Tx, row *statev1.RegistrationEntry) error {
	row.WrittenOn, row.RestoredOn = r.cfg.Store.MemberID(), ""
	row.Generation = raftstore.NextGeneration(tx, row.GetGeneration())
	return entries.Put(tx, row.GetId(), row)
}

// fill makes the row of an entry and reserves its content, if the caller may write it and what it names exists.
func (r *Room) fill(ctx context.Context, tx *raftstore.Tx, e entry.Entry, row *statev1.RegistrationEntry) error {
	if err := access.Permits(ctx, e.SPIFFEID, e.DNSNames...); err != nil {
		return err
	}
	longest, hosted, err := r.cfg.Lifetimes(tx, e.SPIFFEID.TrustDomain())
	if err != nil {
		return err
	}
	if !hosted {
		return status.Errorf(codes.FailedPrecondition, "this cluster is not the authority for %s, so that it cannot "+
			"issue %s: 'entente domain list' shows the trust domains that it hosts", e.SPIFFEID.TrustDomain().Name(),
			e.SPIFFEID)
	}
	for _, ttl := range []struct {
		field           string
		wanted, longest time.Duration
	}{{"x509_svid_ttl", e.X509TTL, longest.X509}, {"jwt_svid_ttl", e.JWTTTL, longest.JWT}} {
		if ttl.wanted > ttl.longest {
			return status.Errorf(codes.InvalidArgument, "%s is %s; %s allows %s: choose less, or raise it with "+
				"'entente "+
				"domain update'", ttl.field, ttl.wanted, e.SPIFFEID.TrustDomain().Name(), ttl.longest)
		}
	}
	held, err := privileged(tx, e.SPIFFEID)
	if err != nil {
		return err
	}
	same, found, err := contents.Get(tx, e.Content())
	if err != nil {
		return err
	}
	if found && same.Value.GetId() != e.ID {
		return status.Errorf(codes.AlreadyExists, "entry %s gives %s to the same workloads: change that one with "+
			"'entente entry update'", same.Value.GetId(), e.SPIFFEID)
	}
	e.SetRow(row)
	row.Held, row.WrittenBy = held, access.Author(ctx)
	return contents.Put(tx, e.Content(), &statev1.EntryContent{Id: e.ID})
}

// deleteEntry deletes an entry.
func deleteEntry(tx *raftstore.Tx, row *statev1.RegistrationEntry) error {
	if e, err := entry.Decode(row); err == nil {
		if err := contents.Delete(tx, e.Content()); err != nil {
			return err
		}
	}
	return entries.Delete(tx, row.GetId())
}

// stored returns an entry that the caller may change.
func stored(ctx context.Context, tx *raftstore.Tx, id, requested string) (*statev1.RegistrationEntry, error) {
	row, found, err := entries.Get(tx, id)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, missing(id)
	}
	of, err := spiffeid.FromString(row.Value.GetSpiffeId())
	if err != nil {
		return nil, fmt.Errorf("the entry %s: %w", id, err)
	}
	if !access.ScopeFrom(ctx).Includes(of.TrustDomain()) {
		return nil, missing(id)
	}
	if err := access.Permits(ctx, of, row.Value.GetDnsNames()...); err != nil {
		return nil, err
	}
	return row.Value, etag.Check(requested, "the entry "+id, etag.Of(row.Value.GetGeneration()))
}

func missing(id string) error {
	return status.Errorf(codes.NotFound, "there is no entry %q: 'entente entry list' shows those that there are", id)
}

// fields copy what an update mask can name.
var fields = map[string]func(to, from *ententev1.Entry){
	"agent":              func(to, from *ententev1.Entry) { to.Agent = from.GetAgent() },
	"parent_selectors":   func(to, from *ententev1.Entry) { to.ParentSelectors = from.GetParentSelectors() },
	"spiffe_id":          func(to, from *ententev1.Entry) { to.SpiffeId = from.GetSpiffeId() },
	"selectors":          func(to, from *ententev1.Entry) { to.Selectors = from.GetSelectors() },
	"x509_svid_ttl":      func(to, from *ententev1.Entry) { to.X509SvidTtl = from.GetX509SvidTtl() },
	"jwt_svid_ttl":       func(to, from *ententev1.Entry) { to.JwtSvidTtl = from.GetJwtSvidTtl() },
	"dns_names":          func(to, from *ententev1.Entry) { to.DnsNames = from.GetDnsNames() },
	"federates_with":     func(to, from *ententev1.Entry) { to.FederatesWith = from.GetFederatesWith() },
	"federates_with_all": func(to, from *ententev1.Entry) { to.FederatesWithAll = from.GetFederatesWithAll() },
	"hint":               func(to, from *ententev1.Entry) { to.Hint = from.GetHint() },
}

// UpdateEntry changes the fields that the mask names.
func (s *entryService) UpdateEntry(ctx context.Context, m *ententev1.UpdateEntryRequest) (*ententev1.Entry, error) {
	id, paths := m.GetEntry().GetId(), m.GetUpdateMask().GetPaths()
	if len(paths) == 0 {
		return nil, status.Error(codes.InvalidArgument, "update_mask is empty: name the fields to change")
	}
	for _, path := range paths {
		if fields[path] == nil {
			return nil, status.Errorf(codes.InvalidArgument, "update_mask names %q, which cannot be changed", path)
		}
	}
	var row *statev1.RegistrationEntry
	var unchanged raftstore.Revision
	revision, err := s.room.cfg.Store.Update(ctx, func(tx *raftstore.Tx) error {
		was, err := stored(ctx, tx, id, m.GetEtag())
		if err != nil {
			return err
		}
		message := entry.Message(was, 0)
		for _, path := range paths {
			fields[path](message, m.GetEntry())
		}
		e, err := entry.Parse(message)
		if err != nil {
			return status.Error(codes.InvalidArgument, err.Error())
		}
		row = proto.CloneOf(was)
		if before, err := entry.Decode(was); err == nil && before.Content() != e.Content() {
			if err := contents.Delete(tx, before.Content()); err != nil {
				return err
			}
		}
		if err := s.room.fill(ctx, tx, e, row); err != nil {
			return err
		}
		unchanged = 0
		if proto.Equal(row, was) && was.GetRestoredOn() == "" {
			unchanged, _ = entries.RevisionOf(tx, id)
			return nil
		}
		return s.room.putEntry(tx, row)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return s.room.shown(row, uint64(cmp.Or(unchanged, revision))), nil
}

// DeleteEntry deletes an entry. Its SVIDs stay valid until they expire.
func (s *entryService) DeleteEntry(
	ctx context.Context, m *ententev1.DeleteEntryRequest,
) (*ententev1.DeleteEntryResponse, error) {
	var effects []*ententev1.Effect
	change := func(tx *raftstore.Tx) error {
		row, err := stored(ctx, tx, m.GetId(), m.GetEtag())
		if err != nil {
			return err
		}
		if effects, err = s.room.lost(tx, entry.Message(row, 0)); err != nil {
			return err
		}
		return deleteEntry(tx, row)
	}
	revision, err := s.room.attempt(ctx, m.GetDryRun(), change)
	if err != nil {
		return nil, err
	}
	if !m.GetDryRun() {
		effects = nil
	}
	return &ententev1.DeleteEntryResponse{Revision: uint64(revision), Effects: effects}, nil
}

// attempt runs a transaction, or tries it for a dry run.
func (r *Room) attempt(
	ctx context.Context, dry bool, change func(*raftstore.Tx) error,
) (revision raftstore.Revision, err error) {
	if dry {
		err = raftstore.Try(ctx, r.cfg.Store, change)
		revision = r.cfg.Store.View().Revision()
	} else {
		revision, err = r.cfg.Store.Update(ctx, change)
	}
	return revision, raftstore.StatusError(err)
}

// lostOf returns the effects of the end of some entries, of which it names the first.
func (r *Room) lostOf(of raftstore.Reader, all []*ententev1.Entry) (effects []*ententev1.Effect, err error) {
	const named = 50
	for i, e := range all {
		if i == named {
			return append(effects, &ententev1.Effect{
				Kind: "svids", Subject: fmt.Sprintf("%d more entries", len(all)-named), Detail: "as those before",
			}), nil
		}
		lost, err := r.lost(of, e)
		if err != nil {
			return nil, err
		}
		effects = append(effects, lost...)
	}
	return effects, nil
}

// lost returns the effect of the end of an entry for an agent: no new SVIDs, and the present ones until they expire.
func (r *Room) lost(of raftstore.Reader, m *ententev1.Entry) ([]*ententev1.Effect, error) {
	e, err := entry.Parse(m)
	if err != nil {
		return nil, err
	}
	longest, _, err := r.cfg.Lifetimes(of, e.SPIFFEID.TrustDomain())
	if err != nil {
		return nil, err
	}
	until := r.cfg.Now().Add(max(cmp.Or(e.X509TTL, longest.X509), cmp.Or(e.JWTTTL, longest.JWT)))
	return []*ententev1.Effect{{
		Kind: "svids", Subject: e.SPIFFEID.String(),
		Detail: fmt.Sprintf("no new ones by entry %s (%s); those issued stay valid until they expire, at the latest",
			e.ID, strings.Join(e.Selectors, " ")),
		Time: timestamppb.New(until),
	}}, nil
}

// GetEntry returns one entry that the caller may see.
func (s *entryService) GetEntry(ctx context.Context, m *ententev1.GetEntryRequest) (*ententev1.Entry, error) {
	view, err := s.room.view(ctx, m.GetRead())
	if err != nil {
		return nil, err
	}
	row, found, err := entries.Get(view, m.GetId())
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	if !found || !visible(access.ScopeFrom(ctx), row.Value) {
		return nil, missing(m.GetId())
	}
	return s.room.shown(row.Value, uint64(row.Revision)), nil
}

// shown returns an entry as the API shows it: with the reason if nothing is issued by it.
func (r *Room) shown(row *statev1.RegistrationEntry, at uint64) *ententev1.Entry {
	m := entry.Message(row, at)
	e, err := entry.Decode(row)
	if err == nil {
		_, err = r.issues(r.cfg.Store.View(), e, row)
	}
	if err != nil {
		m.Stopped = status.Convert(err).Message()
	}
	return m
}

// visible reports whether the ID of an entry is in the scope of a caller.
func visible(scope access.Scope, row *statev1.RegistrationEntry) bool {
	id, err := spiffeid.FromString(row.GetSpiffeId())
	return err == nil && scope.Includes(id.TrustDomain())
}

// ListEntries returns a page of the entries that the caller may see.
func (s *entryService) ListEntries(
	ctx context.Context, m *ententev1.ListEntriesRequest,
) (*ententev1.ListEntriesResponse, error) {
	if err := checkPageSize(m.GetPageSize()); err != nil {
		return nil, err
	}
	view, err := s.room.view(ctx, m.GetRead())
	if err != nil {
		return nil, err
	}
	scope := access.ScopeFrom(ctx)
	out, size := &ententev1.ListEntriesResponse{Revision: uint64(view.Revision())}, 0
	for row, err := range entries.All(view, "") {
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		e := row.Value
		if row.Key <= m.GetPageToken() || m.GetAgent() != "" && e.GetAgent() != m.GetAgent() ||
			m.GetSpiffeId() != "" && e.GetSpiffeId() != m.GetSpiffeId() || !visible(scope, e) {
			continue
		}
		shown := s.room.shown(e, uint64(row.Revision))
		n := len(out.GetEntries())
		if size += proto.Size(shown); n > 0 && (size > maxPageBytes || n == int(m.GetPageSize())) {
			out.NextPageToken = out.GetEntries()[n-1].GetId()
			break
		}
		out.Entries = append(out.Entries, shown)
	}
	return out, nil
}

// issuable returns the entry of an agent by which an SVID is issued now, with the longest lifetimes that it allows.
func (r *Room) issuable(agent, id string) (entry.Entry, Lifetimes, error) {
	view := r.cfg.Store.View()
	var none Lifetimes
	node, found, err := agents.Get(view, agent)
	if err != nil || !found {
		return entry.Entry{}, none, cmp.Or(err, notFound(agent))
	}
	row, found, err := entries.Get(view, id)
	if err != nil {
		return entry.Entry{}, none, err
	}
	refused := status.Errorf(codes.PermissionDenied, "agent %s has no entry %q", agent, id)
	if !found {
		return entry.Entry{}, none, refused
	}
	e, err := entry.Decode(row.Value)
	if err != nil || !e.For(agent, node.Value.GetSelectors()) {
		return entry.Entry{}, none, errors.Join(refused, err)
	}
	longest, err := r.issues(view, e, row.Value)
	if err != nil {
		return entry.Entry{}, none, err
	}
	return e, Lifetimes{
		X509: min(cmp.Or(e.X509TTL, longest.X509), longest.X509), JWT: min(cmp.Or(e.JWTTTL, longest.JWT), longest.JWT),
	}, nil
}

// confirm is the remedy for an entry that needs the consent of somebody else.
const confirm = "who may issue it confirms the entry with 'entente entry update %s --confirm'"

// issues returns the longest lifetimes by an entry in the state of a reader, or an error if nothing is issued by it:
// its author may not issue its ID any more, the ID has a role that the author could not give away, or its trust domain
// is gone. The grants in without do not count.
func (r *Room) issues(
	of raftstore.Reader, e entry.Entry, row *statev1.RegistrationEntry, without ...grant.Grant,
) (Lifetimes, error) {
	refused := func(format string, args ...any) error {
		return status.Errorf(codes.PermissionDenied, format+": "+confirm, append(args, e.ID)...)
	}
	err := r.mayWrite(of, row, without...)
	if errors.As(err, new(*access.Refusal)) {
		return Lifetimes{}, refused("%s, who wrote entry %s, may not issue %s any more", author(row), e.ID, e.SPIFFEID)
	}
	if err != nil {
		return Lifetimes{}, err
	}
	held, err := privileged(of, e.SPIFFEID)
	if err != nil {
		return Lifetimes{}, err
	}
	for _, role := range held {
		if !slices.ContainsFunc(row.GetHeld(), func(had *statev1.HeldRole) bool { return covers(had, role) }) {
			return Lifetimes{}, refused("%s was given a role after entry %s was written, whose author could not "+
				"issue it", e.SPIFFEID, e.ID)
		}
	}
	longest, hosted, err := r.cfg.Lifetimes(of, e.SPIFFEID.TrustDomain())
	if err != nil || !hosted {
		return longest, cmp.Or(err, status.Errorf(codes.FailedPrecondition,
			"this cluster is no longer the authority for %s", e.SPIFFEID.TrustDomain().Name()))
	}
	return longest, nil
}

// author returns who wrote an entry last.
func author(row *statev1.RegistrationEntry) string {
	return cmp.Or(row.GetWrittenBy(), row.GetCreatedBy())
}

// mayWrite returns an [access.Refusal] if the author of an entry could not create it now.
func (r *Room) mayWrite(of raftstore.Reader, row *statev1.RegistrationEntry, without ...grant.Grant) error {
	return r.cfg.AuthorMay(of, author(row), ententev1.EntryService_CreateEntry_FullMethodName,
		&ententev1.CreateEntryRequest{Entry: entry.Message(row, 0)}, without...)
}

// Dependents returns the effects of the revocation of a grant on the entries that its holder wrote.
func (r *Room) Dependents(of raftstore.Reader, revoked grant.Grant) ([]*ententev1.Effect, error) {
	var stopped []*ententev1.Entry
	for _, id := range r.index.by(revoked.Caller.String()) {
		row, found, err := entries.Get(of, id)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		if err = r.mayWrite(of, row.Value); err == nil { // it counts now
			err = r.mayWrite(of, row.Value, revoked)
			if errors.As(err, new(*access.Refusal)) {
				stopped, err = append(stopped, entry.Message(row.Value, 0)), nil
			}
		}
		if err != nil && !errors.As(err, new(*access.Refusal)) {
			return nil, err
		}
	}
	return r.lostOf(of, stopped)
}
