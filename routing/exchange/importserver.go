package exchange

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/internal/apierror"
	"github.com/ententehq/entente/internal/etag"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/raftstore/repeat"
	"github.com/ententehq/entente/routing/plan"
	"github.com/ententehq/entente/routing/registry"
)

// ImportServer serves the calls about imports.
type ImportServer struct {
	store      *raftstore.Store
	agreements Agreements
	now        func() time.Time
}

// ImportService creates an import. Creating an equal import again changes nothing, and keeps what was received for it.
func (s *ImportServer) ImportService(
	ctx context.Context, r *ententev1.ImportServiceRequest,
) (*ententev1.ServiceImport, error) {
	wanted, err := parseImport(r.GetImport())
	if err != nil {
		return nil, invalid(err)
	}
	if repeat.Earlier(ctx) != nil {
		m, err := s.stored(s.store.View(), wanted.key())
		return m, raftstore.StatusError(err)
	}
	id := rand.Text()[:12]
	_, err = s.store.Update(ctx, func(tx *raftstore.Tx) error {
		agreement, err := requireAgreement(s.agreements, tx, wanted.From)
		if err != nil {
			return err
		}
		key := wanted.key()
		if err := importTable.checkEtag(tx, key, r.GetEtag(), nameOfImport(wanted.Service, wanted.From)); err != nil {
			return err
		}
		present, err := importTable.list(tx)
		if err != nil {
			return err
		}
		wanted.generation = raftstore.NextGeneration(tx, 0)
		wanted.id, wanted.created, wanted.relationshipCreated = id, s.now(), agreement.Since
		others := 0
		for _, other := range present {
			switch {
			case other.key() == key && other.Name == wanted.Name && other.counts(agreement):
				return nil
			case other.key() == key:
				wanted.generation = raftstore.NextGeneration(tx, other.generation)
				// It is replaced. What was received for it belongs to another service, or to another agreement.
			case other.From == wanted.From && other.Name == wanted.Name:
				return status.Errorf(codes.AlreadyExists,
					"%s of %s is imported as %s already; 'entente service unimport %s --from %s' ends that import",
					other.Name, other.From, other.Service, other.Service, other.From)
			default:
				others++
			}
		}
		if others >= maxImports {
			return status.Errorf(codes.ResourceExhausted,
				"there are %d imports, which is the limit; remove some with 'entente service unimport'", others)
		}
		return importTable.Put(tx, key, wanted.row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	m, err := s.stored(s.store.View(), wanted.key())
	return m, raftstore.StatusError(err)
}

// stored returns an import as it is stored.
func (s *ImportServer) stored(view raftstore.Reader, key string) (*ententev1.ServiceImport, error) {
	i, err := importTable.written(view, key, "import")
	if err != nil {
		return nil, err
	}
	return s.describe(view, i)
}

// describe returns the API message of an import, with its state.
func (s *ImportServer) describe(r raftstore.Reader, i serviceImport) (*ententev1.ServiceImport, error) {
	m := &ententev1.ServiceImport{
		Name: i.Name, From: i.From, Service: i.Service, CreateTime: timestamppb.New(i.created),
		Revision: uint64(i.revision), Etag: etag.Of(i.generation),
		State: ententev1.ImportState_IMPORT_STATE_PENDING, Detail: "nothing has been received yet",
	}
	if err := describeReceived(r, i, m); err != nil {
		return nil, err
	}
	source, expired, err := registry.ImportSources.Get(r, i.From)
	if err != nil {
		return nil, err
	}
	if expired && m.State != ententev1.ImportState_IMPORT_STATE_PENDING {
		m.State, m.ExpireTime = ententev1.ImportState_IMPORT_STATE_EXPIRED, source.Value.GetExpireTime()
		m.Detail = fmt.Sprintf(
			"import_expired: no stream with the cluster of %s has confirmed it for longer than "+
				"import_ttl; see 'entente federation show %s'",
			i.From,
			i.From,
		)
	}
	agreement, found, err := s.agreements.With(r, i.From)
	switch {
	case err != nil:
		return nil, err
	case !found || !i.counts(agreement):
		m.State, m.Detail = ententev1.ImportState_IMPORT_STATE_ENDED, "the relationship that it was "+
			"created under has ended"
	case agreement.inactiveReason(i.From) != "":
		m.State, m.Detail = ententev1.ImportState_IMPORT_STATE_INACTIVE, agreement.inactiveReason(i.From)
	}
	return m, nil
}

// describeReceived adds what was received for an import.
func describeReceived(r raftstore.Reader, i serviceImport, m *ententev1.ServiceImport) error {
	received, found, err := registry.ImportedSets.Get(r, i.key())
	row := received.Value
	if err != nil || !found || row.GetImport() != i.id {
		return err
	}
	m.Refusal, m.RefuseTime = row.GetRefused(), row.GetRefuseTime()
	if row.GetRefused() != "" {
		m.Detail = "the received set is refused: " + row.GetRefusal()
	}
	if len(row.GetDigest()) == 0 {
		return nil
	}
	m.Instances, m.ChangeTime, m.Digest = row.GetInstances(), row.GetChangeTime(), hex.EncodeToString(row.GetDigest())
	m.State = ententev1.ImportState_IMPORT_STATE_CURRENT
	switch {
	case row.GetNotExported():
		m.State = ententev1.ImportState_IMPORT_STATE_NOT_EXPORTED
		m.Detail = fmt.Sprintf("the cluster of %s does not export %s to this one", i.From, i.Name)
	case row.GetRefused() == "":
		m.Detail = ""
	}
	return nil
}

// nameOfImport is for the messages of refusals.
func nameOfImport(service, from string) string { return "the import of " + service + " from " + from }

// ListServiceImports returns all imports, by service and domain.
func (s *ImportServer) ListServiceImports(
	ctx context.Context, r *ententev1.ListServiceImportsRequest,
) (*ententev1.ListServiceImportsResponse, error) {
	view, err := registry.Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := importTable.list(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	all, err := describeAll(list, func(i serviceImport) (*ententev1.ServiceImport, error) {
		return s.describe(view, i)
	})
	if err != nil {
		return nil, err
	}
	return &ententev1.ListServiceImportsResponse{Revision: uint64(view.Revision()), Imports: all}, nil
}

// UnimportService removes an import. Without its row none of its instances counts; the leader deletes them later.
func (s *ImportServer) UnimportService(
	ctx context.Context, r *ententev1.UnimportServiceRequest,
) (*ententev1.UnimportServiceResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(apierror.InField("service", err))
	}
	from, err := foreignDomain(r.GetFrom())
	if err != nil {
		return nil, invalid(apierror.InField("from", err))
	}
	of := removal{
		etag: r.GetEtag(), name: nameOfImport(r.GetService(), from), key: registry.ImportKey(r.GetService(), from),
	}
	of.missing = status.Errorf(codes.NotFound,
		"nothing is imported into %s from %s; 'entente service imports' lists all imports", r.GetService(), from)
	if r.GetDryRun() {
		view := s.store.View()
		if _, err := importTable.tryRemove(ctx, s.store, of); err != nil {
			return nil, err
		}
		effects, err := unimportEffects(view, r.GetService(), from)
		return &ententev1.UnimportServiceResponse{Revision: uint64(view.Revision()), Effects: effects},
			raftstore.StatusError(err)
	}
	revision, err := importTable.remove(ctx, s.store, of)
	if err != nil {
		return nil, err
	}
	return &ententev1.UnimportServiceResponse{Revision: uint64(revision)}, nil
}

// unimportEffects returns what the end of an import does.
func unimportEffects(r raftstore.Reader, service, from string) ([]*ententev1.Effect, error) {
	all, err := registry.List(r)
	if err != nil {
		return nil, err
	}
	imported, others := 0, 0
	for _, i := range all {
		switch {
		case i.Service != service:
		case i.Origin == from:
			imported++
		default:
			others++
		}
	}
	return []*ententev1.Effect{{
		Kind: "instances", Subject: fmt.Sprintf("%d of %s from %s", imported, service, from),
		Detail: fmt.Sprintf("are removed; %d other instances of the service stay", others),
	}}, nil
}
