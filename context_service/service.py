"""The gRPC face: decode, ask the domain, encode. Errors are typed and become statuses in an interceptor."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc

from agentic_sdr.context.v1 import context_service_pb2 as pb
from agentic_sdr.context.v1 import context_service_pb2_grpc as pb_grpc
from context_service import decode, encode, export, fields
from context_service.lookups import Contexts
from context_service.paging import Pager
from context_service.store import ContextStore, LeadFilter
from service_kit.backups import Backups
from service_kit.errors import InvalidArgument, NotFound

Call = grpc.aio.ServicerContext[Any, Any]
_ROWS = {"default": 50, "most": 200}
_MESSAGES = {"default": 100, "most": 500}
_MAX_CONVERSATIONS = 1000


class ContextServicer(pb_grpc.ContextServiceServicer):
    """Implements `agentic_sdr.context.v1.ContextService`; the contract is in the proto."""

    def __init__(self, *, store: ContextStore, contexts: Contexts, backups: Backups) -> None:
        self._store = store
        self._contexts = contexts
        self._backups = backups

    async def LoadContext(self, request: pb.LoadContextRequest, context: Call) -> pb.LoadContextResponse:
        loaded = await self._contexts.load(decode.context_query(request), request.min_version)
        return encode.context(request.conversation_id, loaded)

    async def RecordTurn(self, request: pb.RecordTurnRequest, context: Call) -> pb.RecordTurnResponse:
        recorded = await self._contexts.record_turn(decode.turn_record(request.record))
        return pb.RecordTurnResponse(version=recorded.version, duplicate=recorded.duplicate, lead_id=recorded.lead_id)

    async def PutSummary(self, request: pb.PutSummaryRequest, context: Call) -> pb.PutSummaryResponse:
        conversation_id = fields.identifier(request.conversation_id, "conversation_id")
        await self._contexts.put_summary(conversation_id, decode.summary(request))
        return pb.PutSummaryResponse()

    async def GetLead(self, request: pb.GetLeadRequest, context: Call) -> pb.GetLeadResponse:
        if bool(request.lead_id) == bool(request.contact):
            raise InvalidArgument("Name either lead_id or contact.", field="lead_id")
        if request.lead_id:
            lead = await self._store.get_lead(fields.uuid_text(request.lead_id, "lead_id"))
            if request.tenant and lead.tenant != decode.tenant(request.tenant):
                raise NotFound("There is no such lead.", resource="lead")
        else:
            lead = await self._store.get_lead_by_alias(decode.tenant(request.tenant), decode.alias(request.contact))
        return pb.GetLeadResponse(lead=encode.lead(lead))

    async def ListLeads(self, request: pb.ListLeadsRequest, context: Call) -> pb.ListLeadsResponse:
        since = fields.instant(request.updated_since, "updated_since") if request.HasField("updated_since") else None
        wanted = LeadFilter(
            tenant=decode.tenant(request.tenant),
            stage=fields.optional_identifier(request.stage, "stage"),
            qualification_status=fields.one_of(
                request.qualification_status, "qualification_status", ("", *decode.QUALIFICATION_STATUSES)
            ),
            updated_since_ms=since,
        )
        pager = Pager("ListLeads", wanted.tenant, wanted.stage, wanted.qualification_status, since)
        page = pager.request(request.page_size, request.page_token, **_ROWS)
        leads, token = pager.answer(
            await self._store.list_leads(wanted, page),
            page,
            key=lambda lead: (lead.updated_ms, lead.lead_id),
            encode=encode.lead,
        )
        return pb.ListLeadsResponse(leads=leads, next_page_token=token)

    async def UpdateLead(self, request: pb.UpdateLeadRequest, context: Call) -> pb.UpdateLeadResponse:
        lead_id = fields.uuid_text(request.lead.lead_id, "lead.lead_id")
        tenant = fields.optional_identifier(request.lead.tenant, "lead.tenant")
        lead = await self._contexts.update_lead(lead_id, tenant, decode.lead_patch(request))
        return pb.UpdateLeadResponse(lead=encode.lead(lead))

    async def ListConversations(
        self, request: pb.ListConversationsRequest, context: Call
    ) -> pb.ListConversationsResponse:
        tenant = decode.tenant(request.tenant)
        lead_id = fields.uuid_text(request.lead_id, "lead_id") if request.lead_id else ""
        pager = Pager("ListConversations", tenant, lead_id)
        page = pager.request(request.page_size, request.page_token, **_ROWS)
        conversations, token = pager.answer(
            await self._store.list_conversations(tenant, lead_id, page),
            page,
            key=lambda one: (one.updated_ms, one.conversation_id),
            encode=encode.conversation,
        )
        return pb.ListConversationsResponse(conversations=conversations, next_page_token=token)

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Call) -> pb.ListMessagesResponse:
        conversation_id = fields.identifier(request.conversation_id, "conversation_id")
        pager = Pager("ListMessages", conversation_id)
        page = pager.request(request.page_size, request.page_token, **_MESSAGES)
        messages, token = pager.answer(
            await self._store.list_messages(conversation_id, page),
            page,
            key=lambda message: (message.sequence, ""),
            encode=encode.message,
        )
        return pb.ListMessagesResponse(messages=messages, next_page_token=token)

    async def ExportContact(
        self, request: pb.ExportContactRequest, context: Call
    ) -> AsyncIterator[pb.ExportContactResponse]:
        ids = _conversation_ids(request.conversation_ids)
        tenant, alias = decode.tenant(request.tenant), decode.alias(request.contact)
        async for chunk in export.document(self._store, tenant=tenant, alias=alias, conversation_ids=ids):
            yield pb.ExportContactResponse(chunk=chunk)

    async def ForgetContact(self, request: pb.ForgetContactRequest, context: Call) -> pb.ForgetContactResponse:
        conversation_ids = _conversation_ids(request.conversation_ids)
        erased = await self._contexts.forget(
            decode.tenant(request.tenant),
            decode.alias(request.contact),
            conversation_ids,
            do_not_contact=request.do_not_contact,
        )
        return pb.ForgetContactResponse(
            leads=erased.leads, conversations=erased.conversations, messages=erased.messages
        )

    async def Backup(self, request: pb.BackupRequest, context: Call) -> pb.BackupResponse:
        copied = await self._store.back_up(self._backups, request.name)
        return pb.BackupResponse(copy=copied.to_pb())


def _conversation_ids(given: Sequence[str]) -> tuple[str, ...]:
    """Conversations of a person, as the buffer names them."""
    fields.number(len(given), "conversation_ids", most=_MAX_CONVERSATIONS)
    return tuple(fields.identifier(one, f"conversation_ids[{n}]") for n, one in enumerate(given))
