"""The same rival on PostgreSQL: FastAPI, SQLAlchemy 2 and asyncpg, in the form that was the fastest (see README.md).

That is Core without the ORM's sessions; what is read with one statement is read in autocommit, which saves BEGIN and ROLLBACK. Rows
are locked in the order of their numbers, so that no two transactions wait for each other; where two insert the same, the index
refuses the second.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi_tables import (
    Account,
    AccountsIn,
    Added,
    AppState,
    AppStateOut,
    Backer,
    BackerIn,
    BackerOut,
    Base,
    Deposit,
    Tier,
    TierIn,
    Transfer,
    same_code,
)
from sqlalchemy import Table, and_, func, inspect, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

CONNECTIONS = int(os.environ.get("BENCH_POOL", "20"))

log = logging.getLogger(__name__)
engine = create_async_engine(
    os.environ["BENCH_DATABASE"].replace("postgresql://", "postgresql+asyncpg://"),
    pool_size=CONNECTIONS,
    max_overflow=0,
)
reading = engine.execution_options(isolation_level="AUTOCOMMIT")


def table_of(model: type[Base]) -> Table:
    return inspect(model).local_table


accounts, app_state, backers, tiers = map(table_of, (Account, AppState, Backer, Tier))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/healthz")
async def health() -> dict[str, bool]:
    return {"ok": True}


@app.get("/app-state")
async def get_app_state() -> AppStateOut:
    async with reading.connect() as connection:
        state = (await connection.execute(select(app_state).where(app_state.c.key == "config"))).first()
        return AppStateOut.model_validate(state) if state else AppStateOut(crowdfunding_active=False)


@app.put("/app-state")
async def set_app_state(state: AppStateOut) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            insert(app_state)
            .values(key="config", crowdfunding_active=state.crowdfunding_active)
            .on_conflict_do_update(index_elements=["key"], set_={"crowdfunding_active": state.crowdfunding_active})
        )


@app.post("/tiers")
async def set_tier(new: TierIn) -> int:
    async with engine.begin() as connection:
        return (await connection.execute(insert(tiers).values(**new.model_dump()).returning(tiers.c.id))).scalar_one()


@app.get("/backers/{username}")
async def get_backer(username: str) -> BackerOut | None:
    async with reading.connect() as connection:
        found = (await connection.execute(select(backers).where(backers.c.username == username).limit(1))).first()
        return BackerOut.model_validate(found) if found else None


@app.post("/backers")
async def add_backer(new: BackerIn) -> Added:
    try:
        async with engine.begin() as connection:
            return await _add_backer(connection, new)
    except IntegrityError:  # somebody else has added the same meanwhile
        async with reading.connect() as connection:
            return Added(success=False, reason="already_exists", id=await _find_backer(connection, new) or 0)


async def _add_backer(connection: AsyncConnection, new: BackerIn) -> Added:
    existing = await _find_backer(connection, new)
    if existing is not None:
        return Added(success=False, reason="already_exists", id=existing)
    if (await connection.execute(select(tiers.c.id).where(tiers.c.name == new.tier))).first() is None:
        log.warning("there is no tier %s yet", new.tier)
    row = insert(backers).values(**new.model_dump(), username_lower=new.username.lower())
    return Added(success=True, id=(await connection.execute(row.returning(backers.c.id))).scalar_one())


async def _find_backer(connection: AsyncConnection, wanted: BackerIn) -> int | None:
    rows = await connection.execute(
        select(backers.c.id, backers.c.access_code).where(
            or_(
                backers.c.username_lower == wanted.username.lower(),
                and_(backers.c.username == wanted.username, backers.c.access_code == wanted.access_code),
            )
        )
    )
    return next((id for id, code in rows if same_code(code, wanted.access_code)), None)


@app.post("/backers/bulk")
async def add_backers(new: list[BackerIn]) -> int:
    rows = [row.model_dump() | {"username_lower": row.username.lower()} for row in new]
    async with engine.begin() as connection:
        await connection.execute(insert(backers), rows)
    return len(new)


@app.post("/accounts")
async def open_accounts(new: AccountsIn) -> None:
    rows = [{"number": number, "balance": new.balance} for number in range(new.count)]
    async with engine.begin() as connection:
        await connection.execute(insert(accounts), rows)


@app.get("/accounts/total")
async def total() -> float:
    async with reading.connect() as connection:
        return (await connection.execute(select(func.sum(accounts.c.balance)))).scalar_one()


@app.post("/deposits")
async def deposit(made: Deposit) -> bool:
    async with reading.connect() as connection:  # one statement, which commits by itself
        await _change(connection, made.number, made.amount)
    return True


@app.post("/transfers")
async def transfer(made: Transfer) -> bool:
    async with engine.begin() as connection:
        for number, change in sorted([(made.source, -made.amount), (made.target, made.amount)]):
            await _change(connection, number, change)
    return True


async def _change(connection: AsyncConnection, number: int, change: float) -> None:
    changed = await connection.execute(
        accounts.update()
        .where(accounts.c.number == number, accounts.c.balance + change >= 0)
        .values(balance=accounts.c.balance + change)
    )
    if changed.rowcount != 1:
        raise HTTPException(422, "There is no such account, or too little on it")
