package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/cmd/entente/cli"
	"github.com/ententehq/entente/node/backup"
	"github.com/ententehq/entente/node/inspect"
)

// snapshotTimeout is the default timeout of saving and restoring: a large state over a slow network.
const snapshotTimeout = 10 * time.Minute

var snapshotInput = cli.Input{Name: "FILE", Remedy: "name a snapshot, as 'entente cluster snapshot save' writes it"}

func snapshotCommand(env *cli.Env) *cobra.Command {
	return cli.Group(
		"snapshot", "Save, restore and inspect the replicated state", snapshotSaveCommand(env),
		snapshotRestoreCommand(env), snapshotInspectCommand(env),
	)
}

// transferring returns a RunE with the timeout of snapshots, unless --timeout is given.
func transferring(
	env *cli.Env, fn func(ctx context.Context, member *cli.Member, file string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if !env.TimeoutSet {
			env.Timeout = snapshotTimeout
		}
		return env.Call(func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			return fn(ctx, member, args[0])
		})(cmd, args)
	}
}

func snapshotSaveCommand(env *cli.Env) *cobra.Command {
	var to []string
	var recipients []age.Recipient
	cmd := &cobra.Command{
		Use:   "save FILE",
		Short: "Save a snapshot of the whole replicated state",
		Long: `Save a snapshot of the whole replicated state: everything but private keys, which never leave
their members.

The file appears when it is complete and checked. With --recipient it is encrypted by age, and only the holder of the
recipient's identity can restore it. A member saves snapshots by itself with a block snapshots in its configuration.`,
		Example: `  entente cluster snapshot save state.snap
  entente cluster snapshot save s.age --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: cli.Arguments("FILE"),
		PreRunE: func(*cobra.Command, []string) (err error) {
			if recipients, err = backup.ParseRecipients(to); err != nil {
				return cli.Usagef("--recipient: %s", err)
			}
			return nil
		},
		RunE: transferring(env, func(ctx context.Context, member *cli.Member, file string) error {
			stream, err := member.Cluster().SaveSnapshot(ctx, &ententev1.SaveSnapshotRequest{})
			if err != nil {
				return err
			}
			var report *inspect.SnapshotReport
			err = cli.WriteFile(file, cli.SecretMode, func(f *os.File) (err error) {
				report, err = saveTo(f, stream, recipients)
				return err
			})
			if err != nil {
				return err
			}
			return env.Print(report, snapshotTable(report))
		}),
	}
	cmd.Flags().StringArrayVar(&to, "recipient", nil, "encrypt the file for this age `RECIPIENT`; can be repeated")
	return cmd
}

// saveTo writes a snapshot as it is received, encrypted for the recipients, and checks it meanwhile.
func saveTo(
	w io.Writer, stream grpc.ServerStreamingClient[ententev1.SaveSnapshotResponse], recipients []age.Recipient,
) (report *inspect.SnapshotReport, err error) {
	encrypted, err := backup.Encrypt(w, recipients)
	if err != nil {
		return nil, err
	}
	checked, check := io.Pipe()
	received := make(chan error, 1)
	go func() {
		err := receive(stream, io.MultiWriter(encrypted, check))
		_ = check.CloseWithError(err) // which ends the check
		received <- err
	}()
	report, err = inspect.Snapshot(checked)
	_ = checked.CloseWithError(err) // which ends the receiving
	if failed := <-received; failed != nil && err == nil {
		err = failed
	}
	return report, errors.Join(err, encrypted.Close())
}

func receive(stream grpc.ServerStreamingClient[ententev1.SaveSnapshotResponse], w io.Writer) error {
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(part.GetData()); err != nil {
			return err
		}
	}
}

func snapshotRestoreCommand(env *cli.Env) *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the replicated state by a snapshot",
		Long: `Replace the replicated state by a snapshot, which is checked whole first. The effect is shown,
and the command asks.

The snapshot must be of this cluster, or the cluster must be empty. Membership, revocations and spent tokens stay as
they are; the sequences of hosted bundles keep rising.`,
		Example: `  entente cluster snapshot restore state.snap --dry-run
  entente cluster snapshot restore state.snap`,
		Args: cli.Arguments("FILE"),
	}
	run := env.Destroys(cmd).Run(
		func(args []string) string { return "Replace the state of the cluster by " + args[0] },
		func(ctx context.Context, member *cli.Member, args []string) (cli.Effects, error) {
			return previewRestore(ctx, member, args[0], identity)
		},
		func(ctx context.Context, member *cli.Member, _ *cobra.Command, args []string) error {
			done, err := restore(ctx, member, args[0], identity)
			if err != nil {
				return err
			}
			return env.Print(done, func(t *cli.Table) {
				t.Otherwise(
					"Restored: the state of revision %d is now revision %d.", done.GetSnapshotRevision(),
					done.GetRevision(),
				)
			})
		})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !env.TimeoutSet {
			env.Timeout = snapshotTimeout
		}
		return run(cmd, args)
	}
	identityFlag(cmd, &identity)
	return cmd
}

// identityFlag adds the flag for encrypted snapshots.
func identityFlag(cmd *cobra.Command, identity *string) {
	cmd.Flags().StringVar(identity, "identity", "", "decrypt the snapshot with the age identities in this `FILE`")
}

// snapshotFile is a snapshot that was checked.
type snapshotFile struct {
	*os.File
	content io.Reader // decrypted
	report  *inspect.SnapshotReport
}

// openSnapshot opens a snapshot and checks it. identity is the file with the age identities; it may be empty.
func openSnapshot(file, identity string) (*snapshotFile, error) {
	var identities []age.Identity
	if identity != "" {
		var err error
		if identities, err = backup.ReadIdentities(identity); err != nil {
			return nil, fmt.Errorf("--identity: %w", err)
		}
	}
	f, err := snapshotInput.Open(file)
	if err != nil {
		return nil, err
	}
	s := &snapshotFile{File: f}
	for try := range 2 { // it is checked whole, and then read again
		if try > 0 {
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		if s.content, err = backup.Reader(f, identities); err == nil && try == 0 {
			s.report, err = inspect.Snapshot(s.content)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", file, err), f.Close())
		}
	}
	return s, nil
}

func previewRestore(
	ctx context.Context, member *cli.Member, file, identity string,
) (*ententev1.RestoreSnapshotResponse, error) {
	f, err := openSnapshot(file, identity)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stream, err := member.Cluster().RestoreSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	err = stream.Send(&ententev1.RestoreSnapshotRequest{DryRun: true, Snapshot: &ententev1.SnapshotDescription{
		ClusterId: f.report.ClusterID, Revision: f.report.Revision, Time: timestamppb.New(f.report.Time),
	}})
	if err != nil && !errors.Is(err, io.EOF) { // the member's error comes with the response
		return nil, err
	}
	return stream.CloseAndRecv()
}

func restore(
	ctx context.Context, member *cli.Member, file, identity string,
) (*ententev1.RestoreSnapshotResponse, error) {
	f, err := openSnapshot(file, identity)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	stream, err := member.Cluster().RestoreSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	return send(stream, f.content)
}

func send(
	stream grpc.ClientStreamingClient[ententev1.RestoreSnapshotRequest, ententev1.RestoreSnapshotResponse], r io.Reader,
) (*ententev1.RestoreSnapshotResponse, error) {
	const partBytes = 64 << 10
	buf := make([]byte, partBytes)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// EOF means that the member has responded already, with what CloseAndRecv returns.
			if err := stream.Send(&ententev1.RestoreSnapshotRequest{Data: buf[:n]}); errors.Is(err, io.EOF) {
				return stream.CloseAndRecv()
			} else if err != nil {
				return nil, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return stream.CloseAndRecv()
		case err != nil:
			return nil, err
		}
	}
}

func snapshotInspectCommand(env *cli.Env) *cobra.Command {
	var identity string
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Check a snapshot file and describe its content, without a member",
		Long: `Check a snapshot file and describe its content, without a member. It verifies the checksum of the file,
and prints the cluster, the revision, the time and the number of rows of each table.`,
		Example: `  entente cluster snapshot inspect state.snap
  entente cluster snapshot inspect state.snap.age --identity key.txt`,
		Args: cli.Arguments("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := openSnapshot(args[0], identity)
			if err != nil {
				return err
			}
			defer f.Close()
			return env.Print(f.report, snapshotTable(f.report))
		},
	}
	identityFlag(cmd, &identity)
	return cmd
}

func snapshotTable(r *inspect.SnapshotReport) func(*cli.Table) {
	return func(t *cli.Table) {
		t.Field("cluster", r.ClusterID)
		t.Field("revision", r.Revision)
		t.Field("taken", fmt.Sprintf("%s (%s)", r.Time.UTC().Format(time.RFC3339), cli.Ago(time.Since(r.Time))))
		t.Field("format", r.FormatVersion)
		t.Field("bytes", r.Bytes)
		t.Field("sha256", r.SHA256)
		for _, table := range r.Tables {
			t.Field("table "+table.Name, fmt.Sprintf("%d rows", table.Rows))
		}
	}
}
