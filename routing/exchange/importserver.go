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
	"github.com/ententehq/entente/raftstore"
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
	id := rand.Text()[:12]
	_, err = s.store.Update(ctx, func(tx *raftstore.Tx) error {
		agreement, err := requireAgreement(s.agreements, tx, wanted.From)
		if err != nil {
			return err
		}
		present, err := listImports(tx)
		if err != nil {
			return err
		}
		wanted.id, wanted.created, wanted.agreed = id, s.now(), agreement.Since
		others := 0
		for _, other := range present {
			switch {
			case other.key() == wanted.key() && other.Name == wanted.Name && other.counts(agreement):
				return nil
			case other.key() == wanted.key():
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
		return registry.Imports.Put(tx, wanted.key(), wanted.row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	m, err := s.stored(s.store.View(), wanted.key())
	return m, raftstore.StatusError(err)
}

// stored returns an import as it is stored.
func (s *ImportServer) stored(view raftstore.Reader, key string) (*ententev1.ServiceImport, error) {
	row, found, err := registry.Imports.Get(view, key)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, status.Error(codes.Aborted, "the import was removed at the same time")
	}
	i, err := importFromRow(row)
	if err != nil {
		return nil, err
	}
	return s.describe(view, i)
}

// describe returns the API message of an import, with its state.
func (s *ImportServer) describe(r raftstore.Reader, i serviceImport) (*ententev1.ServiceImport, error) {
	m := &ententev1.ServiceImport{
		Name: i.Name, From: i.From, Service: i.Service, CreateTime: timestamppb.New(i.created),
		Revision: uint64(i.revision),
		State:    ententev1.ImportState_IMPORT_STATE_PENDING, Detail: "nothing has been received yet",
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
	case row.GetWithheld():
		m.State = ententev1.ImportState_IMPORT_STATE_NOT_EXPORTED
		m.Detail = fmt.Sprintf("the cluster of %s does not export %s to this one", i.From, i.Name)
	case row.GetRefused() == "":
		m.Detail = ""
	}
	return nil
}

// ListServiceImports returns all imports, by service and domain.
func (s *ImportServer) ListServiceImports(
	ctx context.Context, r *ententev1.ListServiceImportsRequest,
) (*ententev1.ListServiceImportsResponse, error) {
	view, err := registry.Read(ctx, s.store, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := listImports(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	response := &ententev1.ListServiceImportsResponse{Revision: uint64(view.Revision())}
	for _, i := range list {
		m, err := s.describe(view, i)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		response.Imports = append(response.Imports, m)
	}
	return response, nil
}

// UnimportService removes an import. Without its row none of its instances counts; the leader deletes them later.
func (s *ImportServer) UnimportService(
	ctx context.Context, r *ententev1.UnimportServiceRequest,
) (*ententev1.UnimportServiceResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(err)
	}
	from, err := foreignDomain(r.GetFrom())
	if err != nil {
		return nil, invalid(err)
	}
	revision, err := s.store.Update(ctx, func(tx *raftstore.Tx) error {
		key := registry.ImportKey(r.GetService(), from)
		if _, found, err := registry.Imports.Get(tx, key); err != nil {
			return err
		} else if !found {
			return status.Errorf(codes.NotFound,
				"nothing is imported into %s from %s; 'entente service imports' lists all imports",
				r.GetService(), from)
		}
		return registry.Imports.Delete(tx, key)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.UnimportServiceResponse{Revision: uint64(revision)}, nil
}
