"""The rival most teams would write: FastAPI, SQLAlchemy 2 and SQLite (WAL, synchronous FULL) under uvicorn.

The same tables, indexes, look-ups and checks as the crowdfunding application; where one statement can do what there are two
look-ups there, it does. Endpoints are `def`, so Starlette runs them in its
threads: tried against `async def` with aiosqlite, that is the faster form here (see README.md). Writers queue at a lock of
this process instead of polling SQLite's own, and take SQLite's at BEGIN, which avoids its upgrade from reader to writer.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from hmac import compare_digest
from typing import Annotated, Any

from fastapi import FastAPI, Header, HTTPException
from fastapi_tables import (
    Added,
    Admin,
    AppState,
    AppStateOut,
    AppUser,
    Backer,
    BackerIn,
    BackerOut,
    Base,
    Claim,
    ClaimToken,
    Credentials,
    SignInAttempts,
    Tier,
    TierIn,
    User,
    now,
    same_code,
)
from sqlalchemy import Engine, and_, create_engine, event, insert, or_, select, update
from sqlalchemy.orm import Session, sessionmaker

CLAIM_SECONDS = 600.0
ATTEMPTS, ATTEMPTS_MS = 10, 60_000.0
DAY_MS = 86_400_000.0

log = logging.getLogger(__name__)


def open_database(path: str) -> Engine:
    """The engine, each connection with the settings that Camber's has."""
    engine = create_engine(f"sqlite:///{path}", pool_size=40, max_overflow=0)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    Base.metadata.create_all(engine)
    return engine


engine = open_database(os.environ["BENCH_DATABASE"])
Reading = sessionmaker(engine)
Writing = sessionmaker(engine.execution_options(begin="BEGIN IMMEDIATE"))
writers = threading.Lock()
app = FastAPI()


@contextmanager
def writing() -> Iterator[Session]:
    """A transaction that writes; one at a time, committed at the end of the block."""
    with writers, Writing.begin() as session:
        yield session


@app.get("/healthz")
def health() -> dict[str, bool]:
    return {"ok": True}


@app.get("/app-state")
def get_app_state() -> AppStateOut:
    with Reading() as session:
        state = session.scalar(select(AppState).where(AppState.key == "config"))
        return AppStateOut.model_validate(state) if state else AppStateOut(crowdfunding_active=False)


@app.put("/app-state")
def set_app_state(state: AppStateOut) -> None:
    with writing() as session:
        existing = session.scalar(select(AppState).where(AppState.key == "config"))
        if existing:
            existing.crowdfunding_active = state.crowdfunding_active
        else:
            session.add(AppState(key="config", crowdfunding_active=state.crowdfunding_active))


@app.post("/tiers")
def set_tier(new: TierIn) -> int:
    with writing() as session:
        tier = Tier(**new.model_dump())
        session.add(tier)
        session.flush()
        return tier.id


@app.get("/backers/{username}")
def get_backer(username: str) -> BackerOut | None:
    with Reading() as session:
        backer = session.scalar(select(Backer).where(Backer.username == username).limit(1))
        return BackerOut.model_validate(backer) if backer else None


@app.post("/backers")
def add_backer(new: BackerIn) -> Added:
    with writing() as session:
        lower = new.username.lower()
        rows = session.execute(
            select(Backer.id, Backer.access_code).where(
                or_(
                    Backer.username_lower == lower,
                    and_(Backer.username == new.username, Backer.access_code == new.access_code),
                )
            )
        )
        existing = next((id for id, code in rows if same_code(code, new.access_code)), None)
        if existing is not None:
            return Added(success=False, reason="already_exists", id=existing)
        if session.scalar(select(Tier.id).where(Tier.name == new.tier)) is None:
            log.warning("there is no tier %s yet", new.tier)
        backer = Backer(**new.model_dump(), username_lower=lower)
        session.add(backer)
        session.flush()
        return Added(success=True, id=backer.id)


@app.post("/backers/bulk")
def add_backers(new: list[BackerIn]) -> int:
    with writing() as session:
        session.execute(insert(Backer), [row.model_dump() | {"username_lower": row.username.lower()} for row in new])
    return len(new)


@app.post("/verify")
def verify_backer(given: Credentials) -> ClaimToken:
    with writing() as session:
        candidates = session.scalars(
            select(Backer).where(Backer.username_lower == given.username.strip().lower())
        ).all()
        matching = [backer for backer in candidates if same_code(backer.access_code, given.access_code.strip())]
        if not matching or matching[0].revoked_at is not None:
            return ClaimToken(valid=False, reason="invalid_credentials")
        backer = matching[0]
        if backer.used_by_user_id is not None:
            return ClaimToken(valid=False, reason="already_used")
        backer.pending_claim_token = secrets.token_urlsafe(16)
        backer.pending_claim_expires_at = now() + CLAIM_SECONDS * 1000
        return ClaimToken(valid=True, backer_id=backer.id, claim_token=backer.pending_claim_token)


@app.post("/users/ensure")
def ensure_app_user(claim: Claim, x_user: Annotated[str, Header()], x_email: Annotated[str, Header()]) -> AppUser:
    with writing() as session:
        try:
            return _start_session(session, claim, auth_user_id=x_user, email=x_email)
        except HTTPException as error:  # raised before anything else was written: the attempt alone is committed
            refusal = error
    raise refusal


def _start_session(session: Session, claim: Claim, *, auth_user_id: str, email: str) -> AppUser:
    _count_attempt(session, auth_user_id)
    user = session.scalar(select(User).where(User.auth_user_id == auth_user_id))
    if user is None:
        user = _sign_up(session, claim, auth_user_id=auth_user_id, email=email)
    session_id = str(uuid.uuid4())
    user.active_session_id, user.session_started_at = session_id, now()
    session.flush()
    is_admin = session.scalar(select(Admin.id).where(Admin.email == email.strip().lower())) is not None
    return AppUser(user_id=user.id, email=user.email, is_admin=is_admin, session_id=session_id)


def _count_attempt(session: Session, subject: str) -> None:
    """At most 10 in each minute; refused ones count too."""
    attempts = session.get(SignInAttempts, subject)
    if attempts is None:
        session.add(SignInAttempts(subject=subject, used=1, since=now()))
    elif now() >= attempts.since + ATTEMPTS_MS:
        attempts.used, attempts.since = 1, now()
    elif attempts.used >= ATTEMPTS:
        raise HTTPException(429, "Too many sign-in attempts.")
    else:
        attempts.used += 1


def _sign_up(session: Session, claim: Claim, *, auth_user_id: str, email: str) -> User:
    backer = session.get(Backer, claim.crowdfunding_backer_id)
    if backer is None or backer.revoked_at is not None:
        raise HTTPException(422, "Invalid backer ID")
    if backer.used_by_user_id is not None:
        raise HTTPException(409, "This backer code has already been used")
    if backer.pending_claim_token is None or (backer.pending_claim_expires_at or 0) < now():
        raise HTTPException(422, "Backer verification expired. Please verify again.")
    if not compare_digest(backer.pending_claim_token, claim.crowdfunding_backer_token):
        raise HTTPException(422, "Backer verification does not match. Please verify again.")
    if session.scalar(select(User.id).where(User.email == email)) is not None:
        raise HTTPException(409, "An account with this email already exists")
    tier = session.scalar(select(Tier).where(Tier.name == backer.tier))
    until = None if tier is None or tier.access_days is None else now() + tier.access_days * DAY_MS
    user = User(
        auth_user_id=auth_user_id,
        email=email,
        created_at=now(),
        crowdfunding_backer_id=backer.id,
        backer_access_granted_at=now(),
        backer_access_until=until,
    )
    session.add(user)
    session.flush()
    marked = session.execute(
        update(Backer)
        .where(Backer.id == backer.id, Backer.used_by_user_id.is_(None))
        .values(used_by_user_id=user.id, used_at=now(), pending_claim_token=None, pending_claim_expires_at=None)
    )
    if marked.rowcount != 1:
        raise HTTPException(409, "This backer code has already been used")
    return user
