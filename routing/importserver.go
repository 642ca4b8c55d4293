package routing

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/raftstore"
	"github.com/ententehq/entente/routing/plan"
)

// ImportService creates an import. One that is made again stays as it is, with what came for it.
func (s *Server) ImportService(ctx context.Context, r *ententev1.ImportServiceRequest) (*ententev1.ServiceImport, error) {
	wanted, err := ParseImport(r.GetImport())
	if err != nil {
		return nil, invalid(err)
	}
	id := rand.Text()[:12]
	_, err = s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		agreement, err := s.m.agreed(tx, wanted.From)
		if err != nil {
			return err
		}
		present, err := imports(tx)
		if err != nil {
			return err
		}
		wanted.id, wanted.created, wanted.agreed = id, s.m.now(), agreement.Since
		others := 0
		for _, other := range present {
			switch {
			case other.key() == wanted.key() && other.Name == wanted.Name && other.counts(agreement):
				return nil
			case other.key() == wanted.key():
				// What came for the one that it replaces was another service's, or another cluster's.
			case other.From == wanted.From && other.Name == wanted.Name:
				return status.Errorf(codes.AlreadyExists, "%s of %s is imported as %s already; 'entente service unimport %s --from %s' ends that", other.Name, other.From, other.Service, other.Service, other.From)
			default:
				others++
			}
		}
		if others >= maxImports {
			return status.Errorf(codes.ResourceExhausted, "there are %d imports, which is the most; remove some with 'entente service unimport'", others)
		}
		return Imports.Put(tx, wanted.key(), wanted.row())
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	view := s.m.store.View()
	row, found, err := Imports.Get(view, wanted.key())
	if err == nil && !found {
		err = status.Error(codes.Aborted, "the import was removed at the same moment")
	}
	var i Import
	if err == nil {
		i, err = importFromRow(row)
	}
	var out *ententev1.ServiceImport
	if err == nil {
		out, err = s.m.shownImport(view, i)
	}
	return out, raftstore.StatusError(err)
}

// shownImport is an import as operators see it.
func (m *Manager) shownImport(r raftstore.Reader, i Import) (*ententev1.ServiceImport, error) {
	out := &ententev1.ServiceImport{
		Name: i.Name, From: i.From, Service: i.Service, CreateTime: timestamppb.New(i.created), Revision: uint64(i.revision),
		State: ententev1.ImportState_IMPORT_STATE_PENDING, Detail: "nothing has come yet",
	}
	came, found, err := ImportedSets.Get(r, i.key())
	if err != nil {
		return nil, err
	}
	if row := came.Value; found && row.GetImport() == i.id {
		out.Refusal, out.RefuseTime = row.GetRefused(), row.GetRefuseTime()
		if row.GetRefused() != "" {
			out.Detail = "what came is refused: " + row.GetRefusal()
		}
		if len(row.GetDigest()) > 0 {
			out.Instances, out.ChangeTime, out.Digest = row.GetInstances(), row.GetChangeTime(), hex.EncodeToString(row.GetDigest())
			out.State = ententev1.ImportState_IMPORT_STATE_CURRENT
			switch {
			case row.GetWithheld():
				out.State = ententev1.ImportState_IMPORT_STATE_NOT_EXPORTED
				out.Detail = fmt.Sprintf("the cluster of %s does not export %s to this one", i.From, i.Name)
			case row.GetRefused() == "":
				out.Detail = ""
			}
		}
	}
	source, expired, err := ImportSources.Get(r, i.From)
	if err != nil {
		return nil, err
	}
	if expired && out.State != ententev1.ImportState_IMPORT_STATE_PENDING {
		out.State, out.ExpireTime = ententev1.ImportState_IMPORT_STATE_EXPIRED, source.Value.GetExpireTime()
		out.Detail = fmt.Sprintf("import_expired: no stream with the cluster of %s has confirmed it for longer than import_ttl; see 'entente federation show %s'", i.From, i.From)
	}
	agreement, found, err := m.agreements.With(r, i.From)
	switch {
	case err != nil:
		return nil, err
	case !found || !i.counts(agreement):
		out.State, out.Detail = ententev1.ImportState_IMPORT_STATE_ENDED, "the relationship that it was made under has ended"
	case agreement.heldBack(i.From) != "":
		out.State, out.Detail = ententev1.ImportState_IMPORT_STATE_HELD_BACK, agreement.heldBack(i.From)
	}
	return out, nil
}

// ListServiceImports returns all imports, by service and domain.
func (s *Server) ListServiceImports(ctx context.Context, r *ententev1.ListServiceImportsRequest) (*ententev1.ListServiceImportsResponse, error) {
	view, err := s.read(ctx, r.GetRead(), true)
	if err != nil {
		return nil, err
	}
	list, err := imports(view)
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	answer := &ententev1.ListServiceImportsResponse{Revision: uint64(view.Revision())}
	for _, i := range list {
		shown, err := s.m.shownImport(view, i)
		if err != nil {
			return nil, raftstore.StatusError(err)
		}
		answer.Imports = append(answer.Imports, shown)
	}
	return answer, nil
}

// UnimportService removes an import. Without its row none of its instances counts; they are cleared away by the leader.
func (s *Server) UnimportService(ctx context.Context, r *ententev1.UnimportServiceRequest) (*ententev1.UnimportServiceResponse, error) {
	if err := plan.CheckServiceName(r.GetService()); err != nil {
		return nil, invalid(err)
	}
	from, err := foreignDomain(r.GetFrom())
	if err != nil {
		return nil, invalid(err)
	}
	revision, err := s.m.store.Update(ctx, func(tx *raftstore.Tx) error {
		key := importKey(r.GetService(), from)
		if _, found, err := Imports.Get(tx, key); err != nil {
			return err
		} else if !found {
			return status.Errorf(codes.NotFound, "nothing is imported into %s from %s; 'entente service imports' lists what is", r.GetService(), from)
		}
		return Imports.Delete(tx, key)
	})
	if err != nil {
		return nil, raftstore.StatusError(err)
	}
	return &ententev1.UnimportServiceResponse{Revision: uint64(revision)}, nil
}
