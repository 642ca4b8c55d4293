package membership

import "io"

// snapshotChunk is how much of a snapshot goes into one message: a small part of gRPC's limit of 4 MiB.
const snapshotChunk = 256 << 10

// chunkWriter sends what is written to it in messages of one size.
type chunkWriter struct {
	send    func([]byte) error
	pending []byte
}

// Write implements io.Writer.
func (w *chunkWriter) Write(p []byte) (int, error) {
	written := len(p)
	for len(p) > 0 {
		n := min(len(p), snapshotChunk-len(w.pending))
		w.pending = append(w.pending, p[:n]...)
		p = p[n:]
		if len(w.pending) == snapshotChunk {
			if err := w.flush(); err != nil {
				return 0, err
			}
		}
	}
	return written, nil
}

func (w *chunkWriter) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	err := w.send(w.pending)
	w.pending = nil // gRPC may keep what was sent
	return err
}

// chunkReader reads the bytes of a stream of messages.
type chunkReader struct {
	receive func() ([]byte, error)
	pending []byte
}

// Read implements io.Reader.
func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.pending) == 0 {
		data, err := r.receive()
		if err != nil {
			return 0, err // io.EOF at the end of the stream
		}
		r.pending = data
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}

var (
	_ io.Writer = (*chunkWriter)(nil)
	_ io.Reader = (*chunkReader)(nil)
)
