// Package repeat lets a caller repeat a call that makes something without making it twice.
//
// A caller that receives no answer, because the leader was lost or a connection broke, does not know whether its call
// was made. The request of such a call has a request_id, a UUID that the caller makes for it. The transaction that
// makes the object writes a row for the caller, the method and that id ([Call.Context]), so that one is not committed
// without the other. When the call is repeated within [Window], [Call.Earlier] finds the row, and the handler of the
// method runs with a context in which [Earlier] returns it: the handler reads the object and answers with it. In such a
// context every transaction fails that would write. A repeated id with another request is refused.
//
// The row has digests, the time, and what the call generated to name the object ([Generated]). A secret is stored
// nowhere, and hence not returned by a repeated call. A call that changes nothing leaves no row; repeating it is a call
// of its own.
//
// Calls that arrive at the same time on two members read and write the same row, so that one of the two transactions is
// rejected, runs again, and finds the row of the other.
//
// The rows are bounded: the ids of a caller are spread over [sets] rows with at most [setSize] calls each, of which the
// oldest is dropped. The leader deletes what is older than the window ([Sweep]). A restore brings the rows of the
// snapshot with its objects: a call whose object it does not bring can be made again.
package repeat
